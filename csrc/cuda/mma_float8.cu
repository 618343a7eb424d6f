// Products of float8 on matrix units that have it: m16n8k32. Operands whose k is not contiguous are packed, for no
// instruction transposes bytes.
#include "cuda/mma.hpp"

namespace gradkern::cuda {
namespace {

using E4M3 = formats::float8_e4m3fn;
using E5M2 = formats::float8_e5m2;

template <class A, class B>
int by_accumulator(const MmaTask& task, const mma::Instruction& instruction, const MmaPlan& plan, Stream stream) {
  if (instruction.accumulate == FormatId::float16)
    return launch_fitting_mma<MmaInstruction<A, B, formats::float16, MmaForm::whole>>(task, plan, stream);
  return launch_fitting_mma<MmaInstruction<A, B, formats::float32, MmaForm::whole>>(task, plan, stream);
}

}  // namespace

int mma_float8(const MmaTask& task, const mma::Instruction& instruction, const MmaPlan& plan, Stream stream) {
  const bool a_e5m2 = instruction.a == E5M2::id, b_e5m2 = instruction.b == E5M2::id;
  if (a_e5m2 && b_e5m2) return by_accumulator<E5M2, E5M2>(task, instruction, plan, stream);
  if (a_e5m2) return by_accumulator<E5M2, E4M3>(task, instruction, plan, stream);
  if (b_e5m2) return by_accumulator<E4M3, E5M2>(task, instruction, plan, stream);
  return by_accumulator<E4M3, E4M3>(task, instruction, plan, stream);
}

}  // namespace gradkern::cuda
