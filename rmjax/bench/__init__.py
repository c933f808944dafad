"""What is measured of rmjax, and what a training needs on other machines."""
