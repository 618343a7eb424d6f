// Products of tfloat32 on matrix units: m16n8k8, and m16n8k4 where the unit's instruction is that one.
#include "cuda/mma.hpp"

namespace gradkern::cuda {
namespace {

template <MmaForm form>
using TF32 = MmaInstruction<formats::tfloat32, formats::tfloat32, formats::float32, form>;

}  // namespace

int mma_tfloat32(const MmaTask& task, const mma::Instruction& instruction, const MmaPlan& plan, Stream stream) {
  if (instruction.k == 4) return launch_mma<TF32<MmaForm::halved>, MmaSmall, MmaLayout::packed>(task, stream);
  return launch_fitting_mma<TF32<MmaForm::whole>>(task, plan, stream);
}

}  // namespace gradkern::cuda
