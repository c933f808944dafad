"""What is read in a compiled program's text, and to which part of a step it belongs."""

import importlib.util
from collections import defaultdict

import pytest
from conftest import SHARED

from rmjax.bench.parts import exchanges, place, sum_parts
from rmjax.bench.program import UNKNOWN_TRIPS, count, read_program

# A step of one batch norm and its loops, as XLA writes it.
TEXT = """\
HloModule jit_step, is_scheduled=true

%cut (p0: f32[1000,8], p1: s32[]) -> f32[1,8] {
  %p0 = f32[1000,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %row = f32[1,8]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,8}
}

%put (q0: f32[1000,8], q1: f32[1,8], q2: s32[]) -> f32[1000,8] {
  %q0 = f32[1000,8]{1,0} parameter(0)
  %q1 = f32[1,8]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %nought = s32[] constant(0)
  ROOT %new = f32[1000,8]{1,0} dynamic-update-slice(%q0, %q1, %q2, %nought)
}

%short.body (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  %b = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%b), index=1
  %sum.1 = f32[8]{0} fusion(%x), kind=kLoop, calls=%none, metadata={op_name="jit(f)/jvp(corrupt)/while/body/add"}, backend_config={"estimated_cycles":"100"}
  ROOT %out = (s32[], f32[8]{0}) tuple(%b, %sum.1)
}

%short.condition (c: (s32[], f32[8])) -> pred[] {
  %c = (s32[], f32[8]{0}) parameter(0)
  %limit = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%c, %limit), direction=LT
}

%open.body (d: (s32[], f32[8])) -> (s32[], f32[8]) {
  %d = (s32[], f32[8]{0}) parameter(0)
  ROOT %draw = (s32[], f32[8]{0}) custom-call(%d), backend_config={"estimated_cycles":"10"}
}

%open.condition (e: (s32[], f32[8])) -> pred[] {
  %e = (s32[], f32[8]{0}) parameter(0)
  ROOT %go = pred[] custom-call(%e)
}

%dear (g: f32[8]) -> f32[8] {
  %g = f32[8]{0} parameter(0)
  ROOT %much = f32[8]{0} fusion(%g), kind=kLoop, calls=%none, backend_config={"estimated_cycles":"3000"}
}

%cheap (h: f32[8]) -> f32[8] {
  %h = f32[8]{0} parameter(0)
  ROOT %little = f32[8]{0} copy(%h), backend_config={"estimated_cycles":"1000"}
}

ENTRY %main (image: bf16[64,8], table: f32[1000,8], i: s32[]) -> (f32[8]) {
  %image = bf16[64,8]{1,0:T(8,128)(2,1)} parameter(0)
  %table = f32[1000,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %conv.1 = (f32[8]{0}, bf16[64,8]{1,0:T(8,128)(2,1)}) fusion(%image), kind=kOutput, calls=%none, metadata={op_name="jit(f)/transpose(jvp(RepMix))/backbone/layer1/block0/conv1/conv_general_dilated"}, backend_config={"estimated_cycles":"7000"}
  %part = f32[8]{0} get-tuple-element(%conv.1), index=0
  %psum.1 = f32[8]{0:T(128)} all-reduce(%part), channel_id=1, to_apply=%none, metadata={op_name="jit(f)/jvp(RepMix)/backbone/layer1/block0/bn1/psum"}
  %all.2 = (f32[1000,8]{1,0}, f32[8]{0}) all-reduce-start(%table, %part), channel_id=2, to_apply=%none, metadata={op_name="jit(f)/psum"}
  %all.3 = (f32[1000,8]{1,0}, f32[8]{0}) all-reduce-done(%all.2)
  %loop.1 = (s32[], f32[8]{0}) while(%t), condition=%short.condition, body=%short.body
  %loop.2 = (s32[], f32[8]{0}) while(%t), condition=%open.condition, body=%short.body, backend_config={"known_trip_count":{"n":"3"}}
  %loop.3 = (s32[], f32[8]{0}) while(%t), condition=%open.condition, body=%open.body, metadata={op_name="jit(f)/jvp(RepMix)/mix/while"}
  %either = f32[8]{0} conditional(%i, %part, %part), branch_computations={%dear, %cheap}, metadata={op_name="jit(f)/optimizer/cond"}
  %row.1 = f32[1,8]{1,0} fusion(%table, %i), kind=kLoop, calls=%cut
  %table.1 = f32[1000,8]{1,0} fusion(%table, %row.1, %i), kind=kLoop, calls=%put
  ROOT %done = (f32[8]{0}) tuple(%either)
}
"""


def test_counts_follow_loops_and_branches():
    counts = count(read_program(TEXT))
    rounds = 5 + 3
    guessed = 10 * UNKNOWN_TRIPS
    assert counts.cycles == 7000 + 100 * rounds + guessed + (3000 + 1000) / 2
    assert counts.guessed_cycles == guessed
    # conv, rows in and out; loops; one of two branches
    assert counts.kernels == 3 + rounds + UNKNOWN_TRIPS + 1
    assert counts.branches == 1
    assert counts.transfers == counts.doubles == 0


def test_bytes_are_of_the_pieces_that_are_taken():
    moved = {
        run.operation.name: run.moved
        for run in read_program(TEXT).runs()
        if run.operation.is_kernel
    }
    image = 64 * 8 * 2
    assert moved["conv.1"] == 2 * image + 8 * 4
    index = 4
    assert moved["row.1"] == 8 * 4 + index + 8 * 4  # of 1,000 rows one
    # The new row, and the place that it is written to: read, and written.
    assert moved["table.1"] == 3 * 8 * 4 + index


def test_parts_add_up_and_loops_give_theirs_on():
    program = read_program(TEXT)
    parts = sum_parts(program, cycles=True)
    assert parts["layer1"]["convolutions"] == parts["layer1"]["backward"] == 7000
    assert parts["corruption"]["forward"] == 800
    assert parts["mixing"]["total"] == 10 * UNKNOWN_TRIPS  # by its loop's scope
    assert parts["optimiser"]["total"] == 2000
    assert sum(p["total"] for p in parts.values()) == count(program).cycles
    assert sum(p["kernels"] for p in parts.values()) == count(program).kernels


def test_exchanges():
    norm, gradients = exchanges(read_program(TEXT))
    assert norm == ("all-reduce", 8 * 4, 1, True)
    assert gradients == ("all-reduce", 1001 * 8 * 4, 1, False)


def test_what_crosses_to_the_host_or_is_double_is_found_anywhere():
    host = '%h.1 = f32[8]{0} custom-call(%x), custom_call_target="xla_python_callback"'
    fused = TEXT.replace("  %zero = s32[] constant(0)", f"  {host}", 1)
    assert count(read_program(fused)).transfers == 1
    double = TEXT.replace("%zero = s32[]", "%zero = f64[]", 1)
    assert count(read_program(double)).doubles == 1


@pytest.mark.parametrize(
    "origin, part, kind, backward",
    [
        ("jit(f)/jvp(RepMix)/backbone/stem/bn/reduce_sum", "stem", "norms", False),
        (
            "jit(f)/transpose(jvp(RepMix))/backbone/layer4/block2/downsample_conv/dot",
            "layer4",
            "convolutions",
            True,
        ),
        ("jit(_fun)/jvp(RepMix)/backbone/stem_0/conv/x", "stem", "convolutions", False),
        ("jit(f)/jvp(RepMix)/mix/vmap(jit(_dirichlet))/add", "mixing", "rest", False),
        (
            "jit(f)/jvp(RepMix)/backbone/embedding/dot",
            "pool, heads, loss",
            "rest",
            False,
        ),
        ("jit(f)/transpose(jvp(loss))/mul", "pool, heads, loss", "rest", True),
        ("jit(f)/corrupt/while/body/cond/mul", "corruption", "rest", False),
        ("jit(f)/transpose", "other", "rest", False),
        ("", "other", "rest", False),
    ],
)
def test_scopes_name_the_part(origin, part, kind, backward):
    assert place(origin) == (part, kind, backward)


def test_counts_are_those_of_the_script_that_measured_before():
    """The one in the reference material, which wrote the first tables."""
    path = SHARED / "accelerators" / "compile_for.py"
    if not path.is_file():
        pytest.skip(f"no {path}")
    spec = importlib.util.spec_from_file_location("compile_for", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    parts, entry = script.read(TEXT)
    by, branches = defaultdict(float), defaultdict(float)
    cycles, kernels = script.count(parts, entry, by, 1.0, branches)
    counts = count(read_program(TEXT))
    assert (counts.cycles, counts.kernels) == (cycles, kernels)
    assert counts.branches == sum(branches.values())
