// chain::Probe: Python gives the net and the loss gradient, and reads the records back.
#include "bindings/chain_arguments.hpp"
#include "chain/device_run.hpp"
#include "chain/run.hpp"

namespace gradkern::bindings {
namespace {

using LayerTuple = std::tuple<Bits, std::optional<Bits>, int, double>;  // weight, bias, activation, alpha

py::object int_or_none(std::int64_t value) { return value < 0 ? py::object(py::none()) : py::object(py::int_(value)); }

py::array stored_array(const chain::Stored& tensor) {
  return py::array_t<std::uint8_t>(static_cast<py::ssize_t>(tensor.bytes.size()), tensor.bytes.data());
}

py::dict record_to_dict(const chain::Record& r, bool with_reference) {
  py::dict d;
  d["layer"] = r.layer;
  d["role"] = chain::role_names[static_cast<int>(r.role)];
  d["rounding"] = counts_to_dict(r.rounding);
  d["stored"] = summary_to_dict(r.stored);
  if (with_reference) {
    py::dict fates, first;
    for (int f = 0; f < chain::fate_count; ++f) {
      fates[chain::fate_names[f]] = r.attribution.counts[f];
      first[chain::fate_names[f]] = int_or_none(r.attribution.first[f]);
    }
    d["fates"] = fates;
    d["first"] = first;
    d["stalled"] = r.attribution.stalled;
    static const char* kinds[] = {"", "inf - inf", "0 * inf"};
    d["invalid_kind"] = kinds[static_cast<int>(r.attribution.invalid_kind)];
    d["reference"] = summary_to_dict(r.reference);
    d["reference_exponent"] = r.reference_exponent;
    d["relative_error"] = r.relative_error;
  }
  if (!r.tensor.bytes.empty()) {
    d["tensor"] = stored_array(r.tensor);
    if (with_reference) {
      d["truth"] = py::array_t<double>(static_cast<py::ssize_t>(r.truth.values.size()), r.truth.values.data());
    }
  }
  return d;
}

class PyRun {
 public:
  PyRun(const std::vector<LayerTuple>& layers, const Bits& input, std::int64_t batch, int storage, int operands,
        int accumulate, int unit, int rounding, int overflow, int subnormals, std::uint64_t seed,
        bool stored_output_derivative, double loss_scale, bool with_reference, bool keep_tensors, bool measured)
      : with_reference_(with_reference), batch_(batch) {
    std::vector<chain::Layer> list;
    kept_.push_back(input.first);
    for (const auto& [weight, bias, activation, alpha] : layers) {
      base::expects(weight.first.ndim() == 2, "probe: a weight must be a matrix");
      if (widths_.empty()) widths_.push_back(weight.first.shape(1));
      widths_.push_back(weight.first.shape(0));
      kept_.push_back(weight.first);
      if (bias) kept_.push_back(bias->first);
      list.push_back({weight.first.shape(1), weight.first.shape(0), source_of(weight),
                      bias ? source_of(*bias) : chain::Source{}, activation_from(activation, alpha)});
    }
    const chain::Arithmetic arithmetic{format_from(storage),     format_from(operands),
                                       format_from(accumulate),  mode_from(rounding, overflow, subnormals, seed),
                                       stored_output_derivative, unit};
    const executor::Executor& e = executor::current();
    if (e.device && !with_reference && !keep_tensors) {
      run_ = std::make_unique<chain::DeviceRun>(e, arithmetic, std::move(list), source_of(input), batch, loss_scale,
                                                measured);
    } else {
      run_ = std::make_unique<chain::Run>(e, arithmetic, std::move(list), source_of(input), batch, loss_scale,
                                          with_reference, keep_tensors, measured);
    }
  }

  std::int64_t planned_bytes() const { return run().planned_bytes(); }

  void forward(const py::object& progress) {
    const auto poll = poll_of(progress);
    py::gil_scoped_release release;
    run().forward(poll);
  }

  void backward(const Doubles& gradient, const std::optional<Doubles>& reference_gradient,
                std::int64_t reference_exponent, const py::object& progress) {
    chain::Values values = vector_of(gradient);
    chain::Reference reference;
    if (reference_gradient) reference = {vector_of(*reference_gradient), reference_exponent};
    const auto poll = poll_of(progress);
    py::gil_scoped_release release;
    run().backward(std::move(values), std::move(reference), poll);
  }

  py::array_t<double> output() const {
    chain::Values values;
    {
      const py::gil_scoped_release release;  // a device may have to be waited for
      values = run().output();
    }
    return array_of(values);
  }

  std::pair<py::array_t<double>, std::int64_t> reference_output() const {
    const auto& r = run().reference_output();
    return {array_of(r.values), r.exponent};
  }

  // The run is over: its tensors are let go.
  PyRecords take_records() {
    PyRecords records(
        run().take_records(),
        [widths = widths_, batch = batch_](const chain::Record& r) {
          using chain::Role;
          const auto layer = static_cast<std::size_t>(r.layer);
          if (r.role == Role::bias || r.role == Role::grad_bias) return PyRecords::Shape{widths[layer]};
          if (r.role == Role::weight || r.role == Role::grad_weight)
            return PyRecords::Shape{widths[layer], widths[layer - 1]};
          return PyRecords::Shape{batch, widths[layer]};
        },
        with_reference_);
    run_.reset();
    return records;
  }

 private:
  chain::Probe& run() const {
    base::expects(run_ != nullptr, "probe: the records were taken already");
    return *run_;
  }

  bool with_reference_;
  std::int64_t batch_;
  std::vector<std::int64_t> widths_;
  std::vector<py::array> kept_;
  std::unique_ptr<chain::Probe> run_;
};

}  // namespace

py::dict PyRecords::at(py::ssize_t index) const {
  const auto count = static_cast<py::ssize_t>(records_.size());
  if (index < 0) index += count;
  if (index < 0 || index >= count) throw py::index_error("records: index out of range");
  const chain::Record& r = records_[static_cast<std::size_t>(index)];
  py::dict d = record_to_dict(r, with_reference_);
  if (!r.tensor.bytes.empty()) d["shape"] = py::tuple(py::cast(shape_of_(r)));
  return d;
}

void bind_chain(py::module_& m) {
  py::class_<PyRun>(m, "ChainRun")
      .def(py::init<const std::vector<LayerTuple>&, const Bits&, std::int64_t, int, int, int, int, int, int, int,
                    std::uint64_t, bool, double, bool, bool, bool>(),
           py::arg("layers"), py::arg("input"), py::arg("batch"), py::arg("storage"), py::arg("operands"),
           py::arg("accumulate"), py::arg("unit"), py::arg("rounding"), py::arg("overflow"), py::arg("subnormals"),
           py::arg("seed"), py::arg("stored_output_derivative"), py::arg("loss_scale"), py::arg("with_reference"),
           py::arg("keep_tensors"), py::arg("measured") = true)
      .def("planned_bytes", &PyRun::planned_bytes)
      .def("forward", &PyRun::forward, py::arg("progress"))
      .def("backward", &PyRun::backward, py::arg("gradient"), py::arg("reference_gradient"),
           py::arg("reference_exponent"), py::arg("progress"))
      .def("output", &PyRun::output)
      .def("reference_output", &PyRun::reference_output)
      .def("take_records", &PyRun::take_records);
  py::class_<PyRecords>(m, "ChainRecords")
      .def("__len__", &PyRecords::size)
      .def("__getitem__", &PyRecords::at, py::arg("index"))
      .def("__iter__",
           [](const py::object& self) { return py::reinterpret_steal<py::object>(PySeqIter_New(self.ptr())); })
      .def("__reduce__", [](const py::object& self) {
        return py::make_tuple(py::type::of(py::list()), py::make_tuple(py::list(self)));
      });
}

}  // namespace gradkern::bindings
