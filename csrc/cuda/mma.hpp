// Which kernel of a matrix unit's instruction multiplies operands that lie in memory as they do.
#pragma once

#include "cuda/mma_kernel.hpp"
#include "mma/units.hpp"

namespace gradkern::cuda {

struct MmaPlan {
  MmaLayout layout;
  bool large;  // tiles
};

// Products of float16 and bfloat16, of tfloat32, of float8, and of float8 that became float16. Each in a file of its
// own, compiled at once.
int mma_half(const MmaTask& task, const mma::Instruction& instruction, const MmaPlan& plan, Stream stream);
int mma_tfloat32(const MmaTask& task, const mma::Instruction& instruction, const MmaPlan& plan, Stream stream);
int mma_float8(const MmaTask& task, const mma::Instruction& instruction, const MmaPlan& plan, Stream stream);
int mma_halves(const MmaTask& task, const mma::Instruction& instruction, const MmaPlan& plan, Stream stream);

// CUDA's number of an operation that this device does not support.
inline constexpr int not_supported = 801;

template <class Instruction, class Shape, MmaLayout layout>
int launch_mma(MmaTask task, Stream stream) {
  using Block = MmaBlock<Instruction, Shape, layout>;
  const std::int64_t tiles_m = (task.m + Shape::m - 1) / Shape::m, tiles_n = (task.n + Shape::n - 1) / Shape::n;
  // A grid's second and third extents are short.
  const std::int64_t slabs = (tiles_n + 65534) / 65535;
  const dim3 grid(static_cast<unsigned>(tiles_m), static_cast<unsigned>((tiles_n + slabs - 1) / slabs),
                  static_cast<unsigned>(slabs));
  Block::TileA::prepare(task.a);
  Block::TileB::prepare(task.b);
  return launch(mma_product_kernel<Instruction, Shape, layout>, grid, dim3(Shape::threads), Block::shared_bytes,
                static_cast<stream_t>(stream), task);
}

template <class Instruction, class Shape>
int launch_copying(const MmaTask& task, MmaLayout layout, Stream stream) {
  if constexpr (sizeof(typename Instruction::A::container) == 2) {
    if (layout == MmaLayout::outer_outer) return launch_mma<Instruction, Shape, MmaLayout::outer_outer>(task, stream);
    if (layout == MmaLayout::k_outer) return launch_mma<Instruction, Shape, MmaLayout::k_outer>(task, stream);
  }
  if (layout == MmaLayout::k_k) return launch_mma<Instruction, Shape, MmaLayout::k_k>(task, stream);
  return launch_mma<Instruction, Shape, MmaLayout::packed>(task, stream);
}

template <class Instruction>
int launch_fitting_mma(const MmaTask& task, const MmaPlan& plan, Stream stream) {
  if (plan.large) return launch_copying<Instruction, MmaLarge>(task, plan.layout, stream);
  return launch_copying<Instruction, MmaSmall>(task, plan.layout, stream);
}

}  // namespace gradkern::cuda
