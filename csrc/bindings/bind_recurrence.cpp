// chain::Recurrence: Python gives the cell, the sequence and the loss gradients, and reads the records back.
#include "bindings/chain_arguments.hpp"
#include "chain/recurrence.hpp"

namespace gradkern::bindings {
namespace {

class PyRecurrence {
 public:
  PyRecurrence(const Bits& recurrent_weight, const Bits& input_weight, const std::optional<Bits>& bias,
               std::pair<int, double> activation, const Bits& x, const std::optional<Bits>& initial,
               std::int64_t truncate, bool round_every_step, const std::vector<int>& formats,
               const std::vector<int>& mode, std::uint64_t seed, bool stored_output_derivative, double loss_scale,
               bool with_reference, bool keep_tensors, bool measured)
      : kept_{recurrent_weight.first, input_weight.first, x.first},
        with_reference_(with_reference),
        round_every_step_(round_every_step) {
    base::expects(recurrent_weight.first.ndim() == 2 && input_weight.first.ndim() == 2 && x.first.ndim() == 3,
                  "probe: weights must be matrices, x (steps, batch, inputs)");
    base::expects(formats.size() == 4 && mode.size() == 3,
                  "probe: an arithmetic has three formats, a unit and three modes");
    if (bias) kept_.push_back(bias->first);
    if (initial) kept_.push_back(initial->first);
    hidden_ = recurrent_weight.first.shape(0);
    inputs_ = input_weight.first.shape(1);
    batch_ = x.first.shape(1);
    const chain::Cell cell{hidden_,
                           inputs_,
                           source_of(recurrent_weight),
                           source_of(input_weight),
                           bias ? source_of(*bias) : chain::Source{},
                           activation_from(activation.first, activation.second)};
    const chain::Sequence sequence{source_of(x), x.first.shape(0),
                                   batch_,       initial ? source_of(*initial) : chain::Source{},
                                   truncate,     round_every_step};
    const chain::Arithmetic arithmetic{format_from(formats[0]),  format_from(formats[1]),
                                       format_from(formats[2]),  mode_from(mode[0], mode[1], mode[2], seed),
                                       stored_output_derivative, formats[3]};
    run_ = std::make_unique<chain::Recurrence>(executor::current(), arithmetic, cell, sequence, loss_scale,
                                               with_reference, keep_tensors, measured);
  }

  std::int64_t planned_bytes() const { return run().planned_bytes(); }

  void forward(const py::object& progress) {
    const auto poll = poll_of(progress);
    py::gil_scoped_release release;
    run().forward(poll);
  }

  void backward(const Doubles& gradients, const std::optional<Doubles>& reference_gradients,
                std::vector<std::int64_t> exponents, const py::object& progress) {
    chain::Recurrence::Gradients list{vector_of(gradients), {}, std::move(exponents)};
    if (reference_gradients) list.reference = vector_of(*reference_gradients);
    const auto poll = poll_of(progress);
    py::gil_scoped_release release;
    run().backward(std::move(list), poll);
  }

  py::array_t<double> output(std::int64_t step) const { return array_of(run().output(step)); }

  std::pair<py::array_t<double>, std::int64_t> reference_output(std::int64_t step) const {
    const auto& r = run().reference_output(step);
    return {array_of(r.values), r.exponent};
  }

  py::dict contributions() const {
    const auto& list = run().contributions();
    const auto column = [&](auto value) {
      using T = decltype(value(list.front()));
      py::array_t<T> array(static_cast<py::ssize_t>(list.size()));
      for (std::size_t i = 0; i < list.size(); ++i) array.mutable_at(static_cast<py::ssize_t>(i)) = value(list[i]);
      return array;
    };
    py::dict d;
    d["step"] = column([](const chain::Contribution& c) { return c.step; });
    d["log2_norm"] = column([](const chain::Contribution& c) { return c.log2_norm; });
    if (round_every_step_) d["absorbed"] = column([](const chain::Contribution& c) { return c.absorbed; });
    if (!with_reference_) return d;
    d["log2_running_truth"] = column([](const chain::Contribution& c) { return c.log2_running_truth; });
    d["exponent"] = column([](const chain::Contribution& c) { return c.exponent; });
    py::list truths;
    for (const auto& c : list) truths.append(summary_to_dict(c.truth));
    d["truth"] = truths;
    return d;
  }

  // The run is over: its tensors are let go.
  PyRecords take_records() {
    const auto shape_of = [hidden = hidden_, inputs = inputs_, batch = batch_](const chain::Record& r) {
      using chain::Role;
      using Shape = PyRecords::Shape;
      if (r.role == Role::bias || r.role == Role::grad_bias) return Shape{hidden};
      if (r.role == Role::weight || r.role == Role::grad_weight) return Shape{hidden, hidden};
      if (r.role == Role::input_weight || r.role == Role::grad_input_weight) return Shape{hidden, inputs};
      return Shape{batch, r.role == Role::input ? inputs : hidden};
    };
    PyRecords records(run().take_records(), shape_of, with_reference_);
    run_.reset();
    return records;
  }

 private:
  chain::Recurrence& run() const {
    base::expects(run_ != nullptr, "probe: the records were taken already");
    return *run_;
  }

  std::vector<py::array> kept_;
  bool with_reference_, round_every_step_;
  std::int64_t hidden_ = 0, inputs_ = 0, batch_ = 0;
  std::unique_ptr<chain::Recurrence> run_;
};

}  // namespace

void bind_recurrence(py::module_& m) {
  py::class_<PyRecurrence>(m, "Recurrence")
      .def(py::init<const Bits&, const Bits&, const std::optional<Bits>&, std::pair<int, double>, const Bits&,
                    const std::optional<Bits>&, std::int64_t, bool, const std::vector<int>&, const std::vector<int>&,
                    std::uint64_t, bool, double, bool, bool, bool>(),
           py::arg("recurrent_weight"), py::arg("input_weight"), py::arg("bias").none(true), py::arg("activation"),
           py::arg("x"), py::arg("initial").none(true), py::arg("truncate"), py::arg("round_every_step"),
           py::arg("formats"), py::arg("mode"), py::arg("seed"), py::arg("stored_output_derivative"),
           py::arg("loss_scale"), py::arg("with_reference"), py::arg("keep_tensors"), py::arg("measured") = true)
      .def("planned_bytes", &PyRecurrence::planned_bytes)
      .def("forward", &PyRecurrence::forward, py::arg("progress"))
      .def("backward", &PyRecurrence::backward, py::arg("gradients"), py::arg("reference_gradients").none(true),
           py::arg("exponents"), py::arg("progress"))
      .def("output", &PyRecurrence::output, py::arg("step"))
      .def("reference_output", &PyRecurrence::reference_output, py::arg("step"))
      .def("contributions", &PyRecurrence::contributions)
      .def("take_records", &PyRecurrence::take_records);
}

}  // namespace gradkern::bindings
