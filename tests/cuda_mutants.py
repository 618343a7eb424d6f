"""CUDA kernels with one thing broken at a time, for test_cuda_mutants.py: what mistakes in parallel code look like."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One place of ``csrc/cuda/file`` written otherwise; `kernel` is the file to compile, `test` the test to fail."""

    name: str
    file: str
    old: str
    new: str
    test: str
    kernel: str = ""  # where `file` is a header
    survives: str = ""  # why no test on the host can catch it

    @property
    def source(self) -> str:
        """The kernels to compile."""
        return self.kernel or self.file


def mutants_of(test: str, *rows: tuple[str, ...]) -> list[Mutant]:
    """The mutants that one test should catch: file, name, old, new and, of a header, the kernel."""
    return [Mutant(name, file, old, new, test, *kernel) for name, file, old, new, *kernel in rows]


PRODUCT = mutants_of(
    "product",
    (
        "product: no barrier after a tile is stored",
        "product.cu",
        "b_shared[buffer ^ 1]);\n      __syncthreads();",
        "b_shared[buffer ^ 1]);",
    ),
    (
        "product: into the buffer that is read",
        "product.cu",
        "TileB::keep(task.b, b_at, b_held, b_shared[buffer ^ 1]);",
        "TileB::keep(task.b, b_at, b_held, b_shared[buffer]);",
    ),
    (
        "product: the sum is not continued",
        "product.cu",
        "if (!task.out.continued) return;",
        "return;",
    ),
    (
        "product: a ragged quad is loaded whole",
        "product_tile.hpp",
        "if (!s.vector || count < 4)",
        "if (!s.vector || count < 3)",
        "product.cu",
    ),
    (
        "product: padding is +0 in both operands",
        "product.cu",
        "TileA::fetch(task.a, true, a_at, a_held);",
        "TileA::fetch(task.a, false, a_at, a_held);",
    ),
    (
        "product: of a list, the first again",
        "product.cu",
        "tasks.task[Shape::together == 1 ? 0 : blockIdx.y]",
        "tasks.task[0]",
    ),
    (
        "product: sums of one format go along with another's",
        "product.cu",
        " && first.accumulate == next.accumulate",
        "",
    ),
    (
        "product: what has no lane goes along",
        "product.cu",
        "way_of(next) == way",
        "(way_of(next) == way || way_of(next) == Way::exact)",
    ),
    (
        "product: the swizzle of a store forgotten",
        "product_tile.hpp",
        "k * outer + (o ^ swizzle(k))};",
        "k * outer + o};",
        "product.cu",
    ),
)

MMA = mutants_of(
    "mma",
    (
        "mma: the tiles that were copied last are not waited for",
        "mma_kernel.hpp",
        "cp_async_wait<0>();\n      __syncthreads();",
        "cp_async_wait<1>();\n      __syncthreads();",
        "mma_half.cu",
    ),
    (
        "mma: no barrier before tiles are read",
        "mma_kernel.hpp",
        "__syncthreads();  // these tiles are there, and those before are read",
        "",
        "mma_half.cu",
    ),
    (
        "mma: the result overwrites tiles that are read",
        "mma_kernel.hpp",
        "void finish() {\n    __syncthreads();",
        "void finish() {",
        "mma_half.cu",
    ),
    (
        "mma: fragments of b swapped",
        "mma_tile.hpp",
        "b[j][w + 1] = four[1], b[j + 1][w] = four[2],",
        "b[j][w + 1] = four[2], b[j + 1][w] = four[1],",
        "mma_half.cu",
    ),
    (
        "mma: fragments of a in the order of b",
        "mma_tile.hpp",
        "8 * (is_a ? lane / 8 & 1 : lane / 16), k_half = is_a ? lane / 16 : lane / 8 & 1;",
        "8 * (lane / 16), k_half = lane / 8 & 1;",
        "mma_half.cu",
    ),
    (
        "mma: copies past the end of k",
        "mma_tile.hpp",
        "cursor.left = s.k - (packed ? 0 : along_outer ? line : chunk * in_chunk);",
        "cursor.left = s.k;",
        "mma_half.cu",
    ),
    (
        "mma: the ring is one tile short",
        "mma_kernel.hpp",
        "multiply(shared + now + stage_bytes);",
        "multiply(shared + now);",
        "mma_tfloat32.cu",
    ),
    (
        "mma: the second half goes to the sum before the first",
        "mma_instruction.hpp",
        "mma_m16n8k16<A>(part, a_second, b_second, part);",
        "mma_m16n8k16<A>(sum, a_second, b_second, sum);",
        "mma_halves.cu",
    ),
    (
        "mma: the formats of the operands swapped",
        "mma_float8.cu",
        "if (a_e5m2) return by_accumulator<E5M2, E4M3>",
        "if (a_e5m2) return by_accumulator<E4M3, E5M2>",
    ),
    (
        "mma: the last packed entry of k is missing",
        "mma_pack.cu",
        "row < pack.outer && at < pack.k ?",
        "row < pack.outer && at + 1 < pack.k ?",
    ),
    (
        "mma: one packed entry of four is not rounded",
        "mma_pack.cu",
        "make_uint4(round_tfloat32(x.x),",
        "make_uint4(x.x,",
    ),
    (
        "mma: pairs of the second half packed first",
        "mma_pack.cu",
        "e / 2 * 4 + chunk / 2 * 2 + e % 2",
        "e / 2 * 4 + (2 - chunk / 2 * 2) + e % 2",
    ),
)

STATISTICS = mutants_of(
    "statistics",
    (
        "statistics: a stage is read before all have copied",
        "lists.hpp",
        "__syncwarp(half_warp);  // this stage is there for all",
        "// this stage is there for all",
        "statistics.cu",
    ),
    (
        "statistics: the mask of the first half for both",
        "lists.hpp",
        "const unsigned half_warp = 0xFFFFu << (threadIdx.x & 16);",
        "const unsigned half_warp = 0xFFFFu;",
        "statistics.cu",
    ),
    (
        "statistics: lanes folded from neighbours up",
        "folds.hpp",
        "for (int width = folded_lanes / 2; width > 0; width /= 2)",
        "for (int width = 1; width < folded_lanes; width *= 2)",
        "statistics.cu",
    ),
    (
        "statistics: cells in shared memory are not cleared",
        "statistics.cu",
        "for (int c = threadIdx.x; c < W::cells; c += list_threads) s.counted[c] = 0;",
        "",
    ),
    (
        "statistics: the share of the block before",
        "statistics.cu",
        "s.moments(0).merge(s.moments(b), s.shares(b));",
        "s.moments(0).merge(s.moments(b), s.shares(b - 1));",
    ),
    (
        "patterns: the last entry is missing",
        "patterns.cu",
        "+ thread; last < size)",
        "+ thread; last + 1 < size)",
    ),
    (
        "patterns: the table is read before all have counted",
        "patterns.cu",
        "static_cast<Counter>(first));\n  __syncthreads();",
        "static_cast<Counter>(first));",
    ),
)

CLIP = mutants_of(
    "clip",
    (
        "clip: a chunk's first non-finite entry without its offset",
        "clip.cu",
        "s.first_nonfinite = chunk.begin + i * list_block",
        "s.first_nonfinite = i * list_block",
    ),
    (
        "clip: counts of warps are summed before they are there",
        "clip_entries.hpp",
        "warps[threadIdx.x / 32] = warp;\n  __syncthreads();",
        "warps[threadIdx.x / 32] = warp;",
        "clip.cu",
    ),
    (
        "clamp: vectors at any address",
        "clip_entries.hpp",
        "reinterpret_cast<std::uintptr_t>(target)) % 16 == 0;",
        "reinterpret_cast<std::uintptr_t>(target)) % 8 == 0;",
        "clip_value.cu",
    ),
)

ELEMENTWISE = mutants_of(
    "elementwise",
    (
        "convert: the scaled value rounded to float32 first",
        "convert.cu",
        "exact = scaled(x, work.scale);",
        "exact = static_cast<float>(scaled(x, work.scale));",
    ),
    (
        "convert: of a list, the first again",
        "convert.cu",
        "tensors[blockIdx.y]",
        "tensors[0]",
    ),
    (
        "convert: sources of any format go along",
        "convert.cu",
        "a.source_format == b.source_format && ",
        "",
    ),
    (
        "convert: what is converted in place goes along",
        "convert.cu",
        " && is_narrow(a) == is_narrow(b)",
        "",
    ),
    (
        "convert: what nobody counts goes along",
        "convert.cu",
        "!a.counts == !b.counts",
        "true",
    ),
    (
        "convert: half of a warp's largest errors",
        "rounding_groups.hpp",
        "for (int lane = 16; lane > 0; lane /= 2)",
        "for (int lane = 8; lane > 0; lane /= 2)",
        "convert.cu",
    ),
    (
        "convert: blocks merged from the last",
        "square_tiles.hpp",
        "for (int first = which * lanes; first < 32 * blocks; first += 32)",
        "for (int first = which * lanes + 32 * (blocks - 1); first >= 0; first -= 32)",
        "convert.cu",
    ),
    (
        "convert: a group over the end of the tensor",
        "convert.cu",
        "is_whole(begin + thread_anew() % 32 * group_size<T>, end)",
        "begin + thread_anew() % 32 * group_size<T> < end",
    ),
    (
        "update: indices in the chunk for those in the tensor",
        "square_tiles.hpp",
        "return first == ~0u ? -1 : chunk.begin() + first;",
        "return first == ~0u ? -1 : std::int64_t(first);",
        "update.cu",
    ),
    (
        "update: a tile is overwritten while it is summed",
        "update.cu",
        "[](int, int) { return 0.0; });\n    __syncwarp();",
        "[](int, int) { return 0.0; });",
    ),
    (
        "update: the step rounded before it is subtracted",
        "update.cu",
        "double x = ops::fma(-args.rate, gradient, weight);",
        "double x = weight - u;",
    ),
    (
        "errors: a flag of the thread for one of the warp",
        "errors.cu",
        "const bool unusual = __any_sync(~0u, seen.unusual);",
        "const bool unusual = seen.unusual;",
    ),
    (
        "activation: a group over the end of the tensor",
        "activation.cu",
        "whole(vectors && is_whole(first, all))",
        "whole(vectors && first < all)",
    ),
    (
        "activation: the output of the first entry for all four",
        "activation.cu",
        "shift_in(h, T(0));",
        "",
    ),
    (
        "elementary: the last entry of a group that goes one by one",
        "elementary.cu",
        "if (first + k < size) store(",
        "if (k + 1 < n && first + k < size) store(",
    ),
)

MATVEC = mutants_of(
    "matvec",
    (
        "matvec: waits for one stage too few",
        "matvec.cu",
        "cp_async_wait<axpy_stages - 2>();",
        "cp_async_wait<axpy_stages - 1>();",
    ),
    (
        "matvec: the ring is one stage short",
        "matvec.cu",
        "here + axpy_stage_bytes == axpy_stages * axpy_stage_bytes ? 0",
        "here + axpy_stage_bytes == (axpy_stages - 1) * axpy_stage_bytes ? 0",
    ),
    (
        "matvec: later vectors over the first",
        "matvec.cu",
        "a.y[(first + v) * a.rows + row()] = y;",
        "a.y[v * a.rows + row()] = y;",
    ),
)

SURVIVORS = [
    Mutant(
        "update: counts added without an atomic",
        "square_tiles.hpp",
        "if (threadIdx.x % 32 == 0 && sum) atomicAdd(total, sum);",
        "if (threadIdx.x % 32 == 0 && sum) *total += sum;",
        "elementwise",
        "update.cu",
        survives="fibers take turns only where they wait, never between a load and its store",
    )
]

MUTANTS = [*PRODUCT, *MMA, *STATISTICS, *CLIP, *ELEMENTWISE, *MATVEC, *SURVIVORS]
TESTS = sorted({m.test for m in MUTANTS})
