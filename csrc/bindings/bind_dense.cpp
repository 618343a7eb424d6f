// The one product behind dense forward and its three backward products.
#include <cstring>

#include "base/expects.hpp"
#include "bindings/array_view.hpp"

namespace gradkern::bindings {
namespace {

executor::Operand matrix(const ArrayView& array, int format, bool transposed, std::int64_t& rows,
                         std::int64_t& columns) {
  base::expects(array.ndim() == 2, "product: operands are matrices");
  rows = array.shape(transposed ? 1 : 0);
  columns = array.shape(transposed ? 0 : 1);
  const std::int64_t row_length = array.shape(1);
  const auto id = format_from(format);
  return {id, bits_of(array, id), transposed ? 1 : row_length, transposed ? row_length : 1};
}

py::object product(const ArrayView& a, int a_format, bool a_transposed, const ArrayView& b, int b_format,
                   bool b_transposed, const std::optional<ArrayView>& bias, int bias_format, int operands,
                   int accumulate, int unit, int instruction_k, const std::optional<ArrayView>& start) {
  const Run run({&a, &b, bias ? &*bias : nullptr, start ? &*start : nullptr});
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
  auto wide = run.wide(args.accumulate, {args.m, args.n});
  args.wide = wide.data;
  const executor::ProductArgs before{};
  if (start) {
    base::expects(start->size() == args.m * args.n, "product: start has the wrong size");
    const void* data = bits_of(*start, executor::wide_format(args.accumulate));
    const py::ssize_t bytes = start->size() * start->itemsize();
    if (const Place* place = run.place()) {
      place->check(place->table().copy(wide.data, data, bytes, place->stream), "copy");
    } else {
      std::memcpy(wide.data, data, static_cast<std::size_t>(bytes));
    }
    args.continued = &before;
  }
  {
    py::gil_scoped_release release;
    const auto& e = run.executor();
    e.products(e, &args, 1);
  }
  return wide.array;
}

}  // namespace

void bind_dense(py::module_& m) {
  m.def("product", &product, py::arg("a"), py::arg("a_format"), py::arg("a_transposed"), py::arg("b"),
        py::arg("b_format"), py::arg("b_transposed"), py::arg("bias").none(true), py::arg("bias_format"),
        py::arg("operands"), py::arg("accumulate"), py::arg("unit") = 0, py::arg("instruction_k") = 0,
        py::arg("start").none(true) = py::none(),
        "a (m, k) times b (k, n) plus bias (n,), one fma a step in `accumulate`, or on a matrix unit, from `start` "
        "or +0, before rounding to storage.");
}

}  // namespace gradkern::bindings
