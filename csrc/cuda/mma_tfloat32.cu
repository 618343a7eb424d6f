// Products of tfloat32 on matrix units: m16n8k8, and m16n8k4 where the unit's instruction is that one. Operands stored
// as float32 are rounded to nearest even in shared memory, each entry once, by the thread that copied it.
#include "cuda/mma.hpp"

namespace gradkern::cuda {
namespace {

template <bool halved>
using TF32 = MmaInstruction<formats::tfloat32, formats::tfloat32, formats::float32, halved>;

}  // namespace

int mma_tfloat32(const MmaTask& task, const mma::Instruction& instruction, Stream stream) {
  if (instruction.k == 4) return launch_gathering<TF32<true>, true>(task, stream);
  const auto is_rounded = [](const MmaSource& s) { return s.format == FormatId::tfloat32; };
  if (is_rounded(task.a) && is_rounded(task.b)) return launch_fitting_mma<TF32<false>, false>(task, stream);
  return launch_fitting_mma<TF32<false>, true>(task, stream);
}

}  // namespace gradkern::cuda
