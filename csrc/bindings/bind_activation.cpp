// Activations over stored tensors, and the elementary functions they are made of.
#include "base/exact_sum.hpp"
#include "base/expects.hpp"
#include "bindings/array_view.hpp"
#include "cpu/kernels.hpp"

namespace gradkern::bindings {

ops::ActivationId activation_from(int id) {
  base::expects(id >= 0 && id < ops::activation_count, "activation: unknown id");
  return static_cast<ops::ActivationId>(id);
}

namespace {

py::object forward(const ArrayView& pre_activation, int format, int activation, double alpha) {
  const Run run({&pre_activation});
  auto wide = run.wide(format_from(format), {pre_activation.size()});
  executor::ActivationArgs args{};
  args.size = pre_activation.size();
  args.activation = activation_from(activation);
  args.alpha = alpha;
  args.format = format_from(format);
  args.pre_activation = bits_of(pre_activation, args.format);
  args.wide = wide.data;
  {
    py::gil_scoped_release release;
    const auto& e = run.executor();
    e.activation_forward(e, args);
  }
  return wide.array;
}

py::object backward(const ArrayView& grad_output, const ArrayView& pre_activation,
                    const std::optional<ArrayView>& output, int format, int activation, double alpha) {
  const Run run({&grad_output, &pre_activation, output ? &*output : nullptr});
  auto wide = run.wide(format_from(format), {pre_activation.size()});
  executor::ActivationArgs args{};
  args.size = pre_activation.size();
  base::expects(grad_output.size() == args.size && (!output || output->size() == args.size),
                "activation_backward: sizes differ");
  args.activation = activation_from(activation);
  args.alpha = alpha;
  args.format = format_from(format);
  args.pre_activation = bits_of(pre_activation, args.format);
  args.grad_output = bits_of(grad_output, args.format);
  args.output = output ? bits_of(*output, args.format) : nullptr;
  args.wide = wide.data;
  {
    py::gil_scoped_release release;
    const auto& e = run.executor();
    e.activation_backward(e, args);
  }
  return wide.array;
}

int elementary_from(const std::string& name) {
  for (int i = 0; i < cpu::elementary_count; ++i) {
    if (name == cpu::elementary_names[i]) return i;
  }
  throw std::invalid_argument("elementary: unknown function '" + name + "'");
}

template <class T>
py::array_t<T> elementary(const std::string& name, const py::array_t<T, py::array::c_style>& x) {
  const int function = elementary_from(name);
  py::array_t<T> y(std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
  const T* source = x.data();
  T* result = y.mutable_data();
  const std::int64_t size = x.size();
  py::gil_scoped_release release;
  const auto& e = executor::current();
  if constexpr (sizeof(T) == 4) {
    e.elementary_f32(e, function, source, result, size);
  } else {
    e.elementary_f64(e, function, source, result, size);
  }
  return y;
}

std::vector<double> exact_parts(const py::array_t<double, py::array::c_style>& x) {
  const double* entry = x.data();
  const std::int64_t size = x.size();
  const py::gil_scoped_release release;
  base::ExactSum sum;
  for (std::int64_t i = 0; i < size; ++i) sum.add(entry[i]);
  return sum.parts();
}

}  // namespace

void bind_activation(py::module_& m) {
  m.attr("activation_names") =
      std::vector<std::string>(ops::activation_names, ops::activation_names + ops::activation_count);
  m.attr("elementary_names") =
      std::vector<std::string>(cpu::elementary_names, cpu::elementary_names + cpu::elementary_count);
  m.def("activation_forward", &forward, py::arg("pre_activation"), py::arg("format"), py::arg("activation"),
        py::arg("alpha"), "phi(z) before rounding to storage.");
  m.def("activation_backward", &backward, py::arg("grad_output"), py::arg("pre_activation"),
        py::arg("output").none(true), py::arg("format"), py::arg("activation"), py::arg("alpha"),
        "grad_output * phi'(z) before rounding to storage; phi' from `output` where it is given.");
  m.def("elementary_f32", &elementary<float>, py::arg("name"), py::arg("x"));
  m.def("elementary_f64", &elementary<double>, py::arg("name"), py::arg("x"));
  m.def("exact_parts", &exact_parts, py::arg("x"),
        "Some numbers of one sign whose exact sum is that of x, which is finite.");
}

}  // namespace gradkern::bindings
