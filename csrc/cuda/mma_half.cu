// Products of float16 and bfloat16 on matrix units: m16n8k16, and m16n8k8 where the unit's instruction is that one.
#include "cuda/mma.hpp"

namespace gradkern::cuda {
namespace {

template <class F, class Accumulate>
int by_depth(const MmaTask& task, int k, Stream stream) {
  if (k == 16) return launch_fitting_mma<MmaInstruction<F, F, Accumulate, false>>(task, stream);
  return launch_gathering<MmaInstruction<F, F, Accumulate, true>, false>(task, stream);
}

}  // namespace

int mma_half(const MmaTask& task, const mma::Instruction& instruction, Stream stream) {
  const int k = instruction.k;
  if (instruction.a == FormatId::bfloat16) return by_depth<formats::bfloat16, formats::float32>(task, k, stream);
  if (instruction.accumulate == FormatId::float16) return by_depth<formats::float16, formats::float16>(task, k, stream);
  return by_depth<formats::float16, formats::float32>(task, k, stream);
}

}  // namespace gradkern::cuda
