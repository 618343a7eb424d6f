// Which kernel of a matrix unit's instruction multiplies operands that lie in memory as they do.
#pragma once

#include "cuda/mma_kernel.hpp"

namespace gradkern::cuda {

// Products whose unit_* says: of float16 and bfloat16, tfloat32, float8. Each in a file of its own, compiled at once.
int mma_half(const MmaTask& task, const mma::Instruction& instruction, Stream stream);
int mma_tfloat32(const MmaTask& task, const mma::Instruction& instruction, Stream stream);
int mma_float8(const MmaTask& task, const mma::Instruction& instruction, Stream stream);

// CUDA's number of an operation that this device does not support.
inline constexpr int not_supported = 801;

template <class Instruction, class Shape, MmaLayout layout, bool rounds>
int launch_mma(MmaTask task, Stream stream) {
  using Block = MmaBlock<Instruction, Shape, layout, rounds>;
  const std::int64_t tiles_m = (task.m + Shape::m - 1) / Shape::m, tiles_n = (task.n + Shape::n - 1) / Shape::n;
  task.tiles_n = static_cast<int>(tiles_n);
  Block::TileA::prepare(task.a);
  Block::TileB::prepare(task.b);
  return launch(mma_product_kernel<Instruction, Shape, layout, rounds>, dim3(static_cast<unsigned>(tiles_m * tiles_n)),
                dim3(Shape::threads), Block::shared_bytes, static_cast<stream_t>(stream), task);
}

// Operands that cannot be copied are gathered, in small tiles.
template <class Instruction, bool rounds>
int launch_gathering(MmaTask task, Stream stream) {
  for (MmaSource* s : {&task.a, &task.b})
    if (s->fill == Fill::copy && s->along_outer) s->fill = Fill::gather;
  // What is gathered is rounded, too; what is copied is rounded where it lies.
  for (MmaSource* s : {&task.a, &task.b})
    if (rounds && s->fill == Fill::gather && s->format == FormatId::float32) s->fill = Fill::convert;
  return launch_mma<Instruction, MmaSmall, MmaLayout::any, rounds>(task, stream);
}

template <class Instruction, class Shape, bool rounds>
int launch_copying(const MmaTask& task, Stream stream) {
  if constexpr (sizeof(typename Instruction::A::container) > 1) {
    if (task.a.along_outer) return launch_mma<Instruction, Shape, MmaLayout::outer_outer, rounds>(task, stream);
    if (task.b.along_outer) return launch_mma<Instruction, Shape, MmaLayout::k_outer, rounds>(task, stream);
  }
  return launch_mma<Instruction, Shape, MmaLayout::k_k, rounds>(task, stream);
}

// Large tiles where they keep most multiprocessors of a large GPU at work.
template <class Instruction, bool rounds = false>
int launch_fitting_mma(const MmaTask& task, Stream stream) {
  constexpr std::int64_t enough_blocks = 96;
  const MmaSource &a = task.a, &b = task.b;
  const bool bytes = sizeof(typename Instruction::A::container) == 1;
  const bool layout = bytes ? !a.along_outer && !b.along_outer : !a.along_outer || b.along_outer;
  if (a.fill != Fill::copy || b.fill != Fill::copy || !layout)
    return launch_gathering<Instruction, rounds>(task, stream);
  using Large = std::conditional_t<sizeof(typename Instruction::A::container) == 1, MmaFloat8, MmaLarge>;
  const std::int64_t large =
      ((task.m + Large::m - 1) / Large::m) * static_cast<std::int64_t>((task.n + Large::n - 1) / Large::n);
  if (large >= enough_blocks) return launch_copying<Instruction, Large, rounds>(task, stream);
  return launch_copying<Instruction, MmaSmall, rounds>(task, stream);
}

}  // namespace gradkern::cuda
