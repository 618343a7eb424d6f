// The table of matrix units, and their scalar model: what tests compare the kernels with, and `explain` shows.
#include "base/expects.hpp"
#include "bindings/module.hpp"
#include "cpu/product.hpp"
#include "mma/trace.hpp"

namespace gradkern::bindings {
namespace {

using Words = py::array_t<std::uint32_t, py::array::c_style | py::array::forcecast>;

mma::Instruction instruction_from(int unit, int a_format, int b_format, int accumulate, int k) {
  base::expects(unit > 0 && unit < mma::unit_count, "mma: unknown unit");
  const auto instruction =
      mma::find(static_cast<mma::Unit>(unit), format_from(a_format), format_from(b_format), format_from(accumulate), k);
  base::expects(instruction.k > 0, "mma: the unit has no such instruction");
  return instruction;
}

py::list matrix_units() {
  static const char* operands[] = {"float16", "bfloat16", "tfloat32", "float8"};
  static const char* outputs[] = {"truncated", "truncated13", "half"};
  py::list list;
  for (const mma::Row& row : mma::rows) {
    py::dict d;
    d["unit"] = mma::unit_names[static_cast<int>(row.unit)];
    d["unit_id"] = static_cast<int>(row.unit);
    d["operands"] = operands[static_cast<int>(row.operands)];
    d["instruction"] = row.instruction;
    d["k"] = row.k;
    d["form"] = mma::form_names[static_cast<int>(row.form)];
    py::list accumulators;
    if (!mma::half_only(row.form)) accumulators.append("float32");
    if (mma::accumulates_half(row)) accumulators.append("float16");
    d["accumulators"] = py::tuple(accumulators);
    d["products"] = row.products;
    d["fraction_bits"] = row.fraction_bits;
    d["floor_float32"] = row.floor_float32;
    d["floor_float16"] = row.floor_float16 == mma::no_half ? py::object(py::none()) : py::int_(row.floor_float16);
    d["float32_output"] = outputs[static_cast<int>(row.float32_output)];
    d["evidence"] = row.evidence;
    list.append(d);
  }
  return list;
}

py::list own_instructions() {
  py::list list;
  const auto& kernels = *static_cast<const cpu::Kernels*>(executor::host().kernels);
  for (const mma::Unit unit : {mma::Unit::x86_amx, mma::Unit::x86_avx512_bf16, mma::Unit::x86_avx512_fp16})
    for (const mma::Row& row : mma::rows)
      if (row.unit == unit && cpu::has_own_instruction(kernels, row.form))
        list.append(mma::unit_names[static_cast<int>(unit)]);
  return list;
}

// d (m, n) from a (m, k), b (n, k) and c (m, n), all raw patterns.
Words mma_model(int unit, int a_format, int b_format, int accumulate, int instruction_k, const Words& a, const Words& b,
                const Words& c, bool right_by_columns) {
  auto instruction = instruction_from(unit, a_format, b_format, accumulate, instruction_k);
  base::expects(a.ndim() == 2 && b.ndim() == 2 && c.ndim() == 2 && a.shape(1) == b.shape(1) &&
                    c.shape(0) == a.shape(0) && c.shape(1) == b.shape(0),
                "mma_model: shapes must be (m, k), (n, k) and (m, n)");
  if (instruction.form == mma::Form::torch)
    instruction = mma::torch_instruction(instruction, a.shape(0), a.shape(1), b.shape(0), false, right_by_columns);
  base::expects(instruction.k > 0, "mma_model: how torch_cpu sums this product is not known");
  Words d({c.shape(0), c.shape(1)});
  const auto k = static_cast<std::int64_t>(a.shape(1));
  for (py::ssize_t i = 0; i < c.shape(0); ++i)
    for (py::ssize_t j = 0; j < c.shape(1); ++j)
      d.mutable_at(i, j) = mma::walk(instruction, a.data() + i * k, b.data() + j * k, k, c.at(i, j));
  return d;
}

py::dict mma_trace(int unit, int a_format, int b_format, int accumulate, const Words& a, const Words& b,
                   std::uint32_t c) {
  const auto instruction = instruction_from(unit, a_format, b_format, accumulate, 0);
  base::expects(!mma::rounds_each(instruction.form), "mma_trace: the unit has no fused steps");
  base::expects(a.size() == b.size() && a.size() <= instruction.step.products, "mma_trace: more products than a step");
  const mma::Trace t = mma::trace(instruction, a.data(), b.data(), static_cast<int>(a.size()), c);
  py::dict d;
  d["common_exponent"] = t.common_exponent;
  d["terms"] = std::vector<std::int64_t>(t.terms, t.terms + t.count);
  d["sum"] = t.sum;
  d["d"] = t.d;
  return d;
}

}  // namespace

void bind_mma(py::module_& m) {
  m.def("matrix_units", &matrix_units, "The instructions of every matrix unit, a unit's default first.");
  m.def("own_instructions", &own_instructions,
        "The units that this processor has, of those that the instruction set in use reaches.");
  m.def("mma_model", &mma_model, py::arg("unit"), py::arg("a_format"), py::arg("b_format"), py::arg("accumulate"),
        py::arg("instruction_k"), py::arg("a"), py::arg("b"), py::arg("c"), py::arg("right_by_columns") = false,
        "The scalar model of a unit: raw patterns (m, k), (n, k) and (m, n) to (m, n).");
  m.def("mma_trace", &mma_trace, py::arg("unit"), py::arg("a_format"), py::arg("b_format"), py::arg("accumulate"),
        py::arg("a"), py::arg("b"), py::arg("c"), "One fused step of a unit and what is inside it, c the last term.");
}

}  // namespace gradkern::bindings
