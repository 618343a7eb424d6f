// Products of float16 and bfloat16 on matrix units: m16n8k16, and m16n8k8 where the unit's instruction is that one.
#include "cuda/mma.hpp"

namespace gradkern::cuda {
namespace {

template <class F, class Accumulate>
int by_depth(const MmaTask& task, int k, const MmaPlan& plan, Stream stream) {
  if (k == 16) return launch_fitting_mma<MmaInstruction<F, F, Accumulate, MmaForm::whole>>(task, plan, stream);
  return launch_mma<MmaInstruction<F, F, Accumulate, MmaForm::halved>, MmaSmall, MmaLayout::packed>(task, stream);
}

}  // namespace

int mma_half(const MmaTask& task, const mma::Instruction& instruction, const MmaPlan& plan, Stream stream) {
  using namespace formats;
  const int k = instruction.k;
  if (instruction.a == FormatId::bfloat16) return by_depth<bfloat16, float32>(task, k, plan, stream);
  if (instruction.accumulate == FormatId::float16) return by_depth<float16, float16>(task, k, plan, stream);
  return by_depth<float16, float32>(task, k, plan, stream);
}

}  // namespace gradkern::cuda
