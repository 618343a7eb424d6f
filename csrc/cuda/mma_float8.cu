// Products of float8 on matrix units: m16n8k32. Operands whose k is not contiguous are transposed byte by byte on their
// way to shared memory, for no instruction does it later.
#include "cuda/mma.hpp"

namespace gradkern::cuda {
namespace {

using E4M3 = formats::float8_e4m3fn;
using E5M2 = formats::float8_e5m2;

template <class Accumulate>
int by_formats(const MmaTask& task, const mma::Instruction& instruction, Stream stream) {
  const bool a_e5m2 = instruction.a == E5M2::id, b_e5m2 = instruction.b == E5M2::id;
  if (a_e5m2 && b_e5m2) return launch_fitting_mma<MmaInstruction<E5M2, E5M2, Accumulate, false>>(task, stream);
  if (a_e5m2) return launch_gathering<MmaInstruction<E5M2, E4M3, Accumulate, false>, false>(task, stream);
  if (b_e5m2) return launch_gathering<MmaInstruction<E4M3, E5M2, Accumulate, false>, false>(task, stream);
  return launch_fitting_mma<MmaInstruction<E4M3, E4M3, Accumulate, false>>(task, stream);
}

}  // namespace

int mma_float8(const MmaTask& task, const mma::Instruction& instruction, Stream stream) {
  if (instruction.accumulate == FormatId::float16) return by_formats<formats::float16>(task, instruction, stream);
  return by_formats<formats::float32>(task, instruction, stream);
}

}  // namespace gradkern::cuda
