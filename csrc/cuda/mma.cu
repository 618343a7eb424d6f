// A product on a matrix unit goes to the kernel of the unit's instruction. The bits are those of the GPU it runs on: the
// executor asks only for units that the device has (executor/device_units.cpp).
#include "cuda/mma.hpp"

namespace gradkern::cuda {
namespace {

using executor::ProductArgs;

int element_bytes(FormatId format) {
  return formats::visit(format, [](auto f) { return static_cast<int>(sizeof(typename decltype(f)::container)); });
}

MmaSource source_of(const executor::Operand& operand, FormatId unit, std::int64_t outer, std::int64_t k,
                    std::int64_t outer_stride, std::int64_t k_stride) {
  MmaSource s{};
  s.data = static_cast<const unsigned char*>(operand.data);
  s.outer_stride = outer_stride;
  s.k_stride = k_stride;
  s.format = operand.format;
  s.outer = static_cast<int>(outer);
  s.k = static_cast<int>(k);
  s.along_outer = outer_stride == 1 && k_stride != 1;
  const bool same = operand.format == unit || (unit == FormatId::tfloat32 && operand.format == FormatId::float32);
  const std::int64_t contiguous = s.along_outer ? outer_stride : k_stride;
  const std::int64_t line = (s.along_outer ? k_stride : outer_stride) * element_bytes(operand.format);
  const bool aligned = contiguous == 1 && line % 16 == 0 && reinterpret_cast<std::uintptr_t>(operand.data) % 16 == 0;
  s.fill = !same ? Fill::convert : aligned ? Fill::copy : Fill::gather;
  return s;
}

// Units whose instructions are mma.sync's.
bool is_synchronous(mma::Unit unit) { return unit != mma::Unit::hopper_wgmma && unit != mma::Unit::blackwell_tcgen05; }

}  // namespace

int mma_product(const ProductArgs* args, Stream stream) {
  const auto unit = static_cast<mma::Unit>(args->unit);
  const FormatId a = mma::operand_format(args->a.format, args->operands),
                 b = mma::operand_format(args->b.format, args->operands);
  const mma::Instruction instruction = mma::find(unit, a, b, args->accumulate, args->instruction_k);
  if (instruction.form == mma::Form::fused_half) {  // the fma chain by another name
    ProductArgs chain = *args;
    chain.unit = 0;
    return product(&chain, stream);
  }
  // mma.m8n8k4 is Volta's own.
  if (instruction.k == 0 || mma::rounds_each(instruction.form) || !is_synchronous(unit) ||
      (a == FormatId::float16 && instruction.k == 4))
    return not_supported;
  MmaTask task{};
  task.a = source_of(args->a, a, args->m, args->k, args->a.row_stride, args->a.column_stride);
  task.b = source_of(args->b, b, args->n, args->k, args->b.column_stride, args->b.row_stride);
  task.m = static_cast<int>(args->m);
  task.n = static_cast<int>(args->n);
  task.k = static_cast<int>(args->k);
  task.out = epilogue_of(*args);
  if (a == FormatId::tfloat32) return mma_tfloat32(task, instruction, stream);
  if (element_bytes(a) == 1) return mma_float8(task, instruction, stream);
  return mma_half(task, instruction, stream);
}

}  // namespace gradkern::cuda
