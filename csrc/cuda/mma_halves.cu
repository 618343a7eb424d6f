// Products of float8 where mma.sync has no unit for it (Hopper, Blackwell): two m16n8k16 of float16, then an addition.
#include "cuda/mma.hpp"

namespace gradkern::cuda {
namespace {

template <class Accumulate>
using Halves = MmaInstruction<formats::float16, formats::float16, Accumulate, MmaForm::halves>;

template <class Accumulate>
int by_size(const MmaTask& task, const MmaPlan& plan, Stream stream) {
  if (plan.large) return launch_mma<Halves<Accumulate>, MmaLarge, MmaLayout::packed>(task, stream);
  return launch_mma<Halves<Accumulate>, MmaFewWarps, MmaLayout::packed>(task, stream);
}

}  // namespace

int mma_halves(const MmaTask& task, const mma::Instruction& instruction, const MmaPlan& plan, Stream stream) {
  if (instruction.accumulate == FormatId::float16) return by_size<formats::float16>(task, plan, stream);
  return by_size<formats::float32>(task, plan, stream);
}

}  // namespace gradkern::cuda
