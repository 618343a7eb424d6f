// The one product behind dense forward and its three backward products.
#include <cstring>

#include "base/expects.hpp"
#include "bindings/module.hpp"

namespace gradkern::bindings {
namespace {

executor::Operand matrix(const py::array& array, int format, bool transposed, std::int64_t& rows,
                         std::int64_t& columns) {
  base::expects(array.ndim() == 2, "product: operands are matrices");
  rows = array.shape(transposed ? 1 : 0);
  columns = array.shape(transposed ? 0 : 1);
  const std::int64_t row_length = array.shape(1);
  const auto id = format_from(format);
  return {id, bits_of(array, id), transposed ? 1 : row_length, transposed ? row_length : 1};
}

py::array product(const py::array& a, int a_format, bool a_transposed, const py::array& b, int b_format,
                  bool b_transposed, const std::optional<py::array>& bias, int bias_format, int operands,
                  int accumulate, int unit, int instruction_k, const std::optional<py::array>& start) {
  executor::ProductArgs args{};
  std::int64_t inner = 0;
  args.a = matrix(a, a_format, a_transposed, args.m, args.k);
  args.b = matrix(b, b_format, b_transposed, inner, args.n);
  base::expects(inner == args.k, "product: the inner sizes differ");
  args.operands = format_from(operands);
  args.accumulate = format_from(accumulate);
  args.unit = unit;
  args.instruction_k = instruction_k;
  args.bias_format = format_from(bias_format);
  if (bias) {
    base::expects(bias->size() == args.n, "product: bias has the wrong size");
    args.bias = bits_of(*bias, args.bias_format);
  }
  py::array wide = wide_array(args.accumulate, {args.m, args.n});
  args.wide = wide.mutable_data();
  const executor::ProductArgs before{};
  if (start) {
    base::expects(start->size() == args.m * args.n, "product: start has the wrong size");
    std::memcpy(args.wide, bits_of(*start, executor::wide_format(args.accumulate)),
                static_cast<std::size_t>(wide.nbytes()));
    args.continued = &before;
  }
  py::gil_scoped_release release;
  const auto& e = executor::current();
  e.products(e, &args, 1);
  return wide;
}

}  // namespace

void bind_dense(py::module_& m) {
  m.def("product", &product, py::arg("a"), py::arg("a_format"), py::arg("a_transposed"), py::arg("b"),
        py::arg("b_format"), py::arg("b_transposed"), py::arg("bias").none(true), py::arg("bias_format"),
        py::arg("operands"), py::arg("accumulate"), py::arg("unit") = 0, py::arg("instruction_k") = 0,
        py::arg("start").none(true) = py::none(),
        "a (m, k) times b (k, n) plus bias (n,), one fma a step in `accumulate`, or on a matrix unit, from `start` or "
        "+0, "
        "before rounding to storage.");
}

}  // namespace gradkern::bindings
