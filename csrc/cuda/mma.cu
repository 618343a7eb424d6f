// A product on a matrix unit goes to the kernel of the unit's instruction; operands that this cannot copy as they lie are
// packed first, into memory borrowed in the order of the stream. The bits are those of the GPU it runs on: the executor
// asks only for units that the device has (executor/device_units.cpp).
#include "cuda/mma.hpp"

#include "cuda/runtime.hpp"

namespace gradkern::cuda {
namespace {

using executor::ProductArgs;

// One operand: where it lies, and what the instruction multiplies it as.
struct Operand {
  MmaSource at;
  FormatId format, unit;

  bool along_outer() const { return at.outer_stride == 1 && at.k_stride != 1; }

  // By 16 aligned bytes, all of which belong to it.
  bool is_copied() const {
    const std::int64_t bytes = formats::container_bytes(format),
                       contiguous = along_outer() ? at.outer_stride : at.k_stride,
                       count = along_outer() ? at.outer : at.k, line = along_outer() ? at.k_stride : at.outer_stride;
    return format == unit && contiguous == 1 && count * bytes % 16 == 0 && line * bytes % 16 == 0 &&
           reinterpret_cast<std::uintptr_t>(at.data) % 16 == 0;
  }

  MmaPack packing(int tile, bool is_a, bool in_halves) const {
    return {at.data, format, at.outer_stride, at.k_stride, at.outer, at.k, tile, is_a, in_halves, false, nullptr};
  }
};

Operand operand_of(const executor::Operand& o, FormatId unit, std::int64_t outer, std::int64_t k,
                   std::int64_t outer_stride, std::int64_t k_stride) {
  return {{static_cast<const unsigned char*>(o.data), outer_stride, k_stride, static_cast<int>(outer),
           static_cast<int>(k), 0, 0},
          o.format,
          unit};
}

// Large tiles where they keep most multiprocessors of a large GPU at work.
MmaPlan plan_of(const Operand& a, const Operand& b, bool default_instruction) {
  constexpr std::int64_t enough_blocks = 96;
  const std::int64_t tiles_m = (a.at.outer + MmaLarge::m - 1) / MmaLarge::m,
                     tiles_n = (b.at.outer + MmaLarge::n - 1) / MmaLarge::n;
  // Only 16-bit entries can be transposed on their way out of shared memory.
  const bool transposed = formats::container_bytes(a.unit) == 2, a_outer = a.along_outer(), b_outer = b.along_outer();
  const bool copied = default_instruction && a.is_copied() && b.is_copied() &&
                      (transposed ? !a_outer || b_outer : !a_outer && !b_outer);
  const MmaLayout layout = a_outer ? MmaLayout::outer_outer : b_outer ? MmaLayout::k_outer : MmaLayout::k_k;
  return {copied ? layout : MmaLayout::packed, tiles_m * tiles_n >= enough_blocks};
}

int multiply(const MmaTask& task, const mma::Instruction& instruction, const MmaPlan& plan, Stream stream) {
  if (instruction.form == mma::Form::halves) return mma_halves(task, instruction, plan, stream);
  if (instruction.a == FormatId::tfloat32) return mma_tfloat32(task, instruction, plan, stream);
  if (formats::container_bytes(instruction.a) == 1) return mma_float8(task, instruction, plan, stream);
  return mma_half(task, instruction, plan, stream);
}

// Both operands packed, then their product.
int multiply_packed(MmaTask task, const Operand& a, const Operand& b, const mma::Instruction& instruction,
                    const MmaPlan& plan, Stream stream) {
  static_assert(MmaLarge::m == MmaLarge::n && MmaSmall::m == MmaSmall::n && MmaSmall::m == MmaFewWarps::m);
  const int tile = plan.large ? MmaLarge::m : MmaSmall::m;
  const bool in_halves = instruction.form == mma::Form::halves;
  MmaPack pack_a = a.packing(tile, true, in_halves), pack_b = b.packing(tile, false, in_halves);
  const std::int64_t a_bytes = packed_bytes(pack_a, a.unit);
  void* memory = nullptr;
  if (const int error = allocate(&memory, a_bytes + packed_bytes(pack_b, b.unit), stream)) return error;
  pack_a.packed = static_cast<unsigned char*>(memory);
  pack_b.packed = pack_a.packed + a_bytes;
  task.a.data = pack_a.packed;
  task.b.data = pack_b.packed;
  int error = mma_pack(pack_a, a.unit, stream);
  if (!error) error = mma_pack(pack_b, b.unit, stream);
  if (!error) error = multiply(task, instruction, plan, stream);
  const int released = release(memory, stream);
  return error ? error : released;
}

// Units whose instructions are mma.sync's.
bool is_synchronous(mma::Unit unit) { return unit != mma::Unit::hopper_wgmma && unit != mma::Unit::blackwell_tcgen05; }

}  // namespace

int mma_product(const ProductArgs* args, Stream stream) {
  const auto unit = static_cast<mma::Unit>(args->unit);
  const FormatId a_format = mma::operand_format(args->a.format, args->operands),
                 b_format = mma::operand_format(args->b.format, args->operands);
  const mma::Instruction instruction = mma::find(unit, a_format, b_format, args->accumulate, args->instruction_k);
  if (instruction.form == mma::Form::fused_half) {  // the fma chain by another name
    ProductArgs chain = *args;
    chain.unit = 0;
    return products(&chain, 1, stream);
  }
  // mma.m8n8k4 is Volta's own.
  if (instruction.k == 0 || mma::rounds_each(instruction.form) || !is_synchronous(unit) ||
      (a_format == FormatId::float16 && instruction.k == 4))
    return not_supported;
  const Operand a = operand_of(args->a, mma::multiplied(instruction.form, a_format), args->m, args->k,
                               args->a.row_stride, args->a.column_stride);
  const Operand b = operand_of(args->b, mma::multiplied(instruction.form, b_format), args->n, args->k,
                               args->b.column_stride, args->b.row_stride);
  MmaTask task{};
  task.a = a.at;
  task.b = b.at;
  task.m = static_cast<int>(args->m);
  task.n = static_cast<int>(args->n);
  task.k = static_cast<int>(args->k);
  task.out = epilogue_of(*args);
  const bool halved = instruction.k * formats::container_bytes(a_format) == 16;
  const MmaPlan plan = plan_of(a, b, !halved);
  if (plan.layout == MmaLayout::packed) return multiply_packed(task, a, b, instruction, plan, stream);
  return multiply(task, instruction, plan, stream);
}

}  // namespace gradkern::cuda
