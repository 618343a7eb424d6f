// chain::Run: Python gives the net and the loss gradient, and reads the records back.
#include "base/expects.hpp"
#include "bindings/module.hpp"
#include "bindings/summary.hpp"
#include "chain/run.hpp"

namespace gradkern::bindings {
namespace {

// (bits, format) of an argument; the Run holds a reference to the array.
using Bits = std::pair<py::array, int>;
using LayerTuple = std::tuple<Bits, std::optional<Bits>, int, double>;  // weight, bias, activation, alpha

chain::Source source_of(const Bits& bits) {
  const auto format = format_from(bits.second);
  return {format, bits_of(bits.first, format), bits.first.size()};
}

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

// What a run recorded. A record becomes a dict when it is asked for: most of a large report never is.
class PyRecords {
 public:
  PyRecords(std::vector<chain::Record> records, std::vector<std::int64_t> widths, std::int64_t batch,
            bool with_reference)
      : records_(std::move(records)), widths_(std::move(widths)), batch_(batch), with_reference_(with_reference) {}

  std::size_t size() const { return records_.size(); }

  py::dict at(py::ssize_t index) const {
    const auto count = static_cast<py::ssize_t>(records_.size());
    if (index < 0) index += count;
    if (index < 0 || index >= count) throw py::index_error("records: index out of range");
    const chain::Record& r = records_[static_cast<std::size_t>(index)];
    py::dict d = record_to_dict(r, with_reference_);
    if (!r.tensor.bytes.empty()) d["shape"] = shape_of(r);
    return d;
  }

 private:
  py::tuple shape_of(const chain::Record& r) const {
    using chain::Role;
    const auto layer = static_cast<std::size_t>(r.layer);
    if (r.role == Role::bias || r.role == Role::grad_bias) return py::make_tuple(widths_[layer]);
    if (r.role == Role::weight || r.role == Role::grad_weight)
      return py::make_tuple(widths_[layer], widths_[layer - 1]);
    return py::make_tuple(batch_, widths_[layer]);
  }

  std::vector<chain::Record> records_;
  std::vector<std::int64_t> widths_;  // of the input, then of each layer
  std::int64_t batch_;
  bool with_reference_;
};

class PyRun {
 public:
  PyRun(const std::vector<LayerTuple>& layers, const Bits& input, std::int64_t batch, int storage, int operands,
        int accumulate, int rounding, int overflow, int subnormals, std::uint64_t seed, bool stored_output_derivative,
        double loss_scale, bool with_reference, bool keep_tensors, bool measured)
      : with_reference_(with_reference), batch_(batch) {
    std::vector<chain::Layer> list;
    kept_.push_back(input.first);
    for (const auto& [weight, bias, activation, alpha] : layers) {
      base::expects(weight.first.ndim() == 2, "probe: a weight must be a matrix");
      base::expects(activation >= 0 && activation < ops::activation_count, "probe: unknown activation");
      if (widths_.empty()) widths_.push_back(weight.first.shape(1));
      widths_.push_back(weight.first.shape(0));
      kept_.push_back(weight.first);
      if (bias) kept_.push_back(bias->first);
      list.push_back({weight.first.shape(1),
                      weight.first.shape(0),
                      source_of(weight),
                      bias ? source_of(*bias) : chain::Source{},
                      {static_cast<ops::ActivationId>(activation), alpha}});
    }
    const chain::Arithmetic arithmetic{format_from(storage), format_from(operands), format_from(accumulate),
                                       mode_from(rounding, overflow, subnormals, seed), stored_output_derivative};
    run_ = std::make_unique<chain::Run>(executor::current(), arithmetic, std::move(list), source_of(input), batch,
                                        loss_scale, with_reference, keep_tensors, measured);
  }

  std::int64_t planned_bytes() const { return run().planned_bytes(); }

  void forward(const py::object& progress) {
    const auto poll = poll_of(progress);
    py::gil_scoped_release release;
    run().forward(poll);
  }

  void backward(const py::array_t<double, py::array::c_style>& gradient,
                const std::optional<py::array_t<double, py::array::c_style>>& reference_gradient,
                std::int64_t reference_exponent, const py::object& progress) {
    std::vector<double> values(gradient.data(), gradient.data() + gradient.size());
    chain::Reference reference;
    if (reference_gradient) {
      reference.values.assign(reference_gradient->data(), reference_gradient->data() + reference_gradient->size());
      reference.exponent = reference_exponent;
    }
    const auto poll = poll_of(progress);
    py::gil_scoped_release release;
    run().backward(std::move(values), std::move(reference), poll);
  }

  py::array_t<double> output() const {
    const auto values = run().output();
    return py::array_t<double>(static_cast<py::ssize_t>(values.size()), values.data());
  }

  std::pair<py::array_t<double>, std::int64_t> reference_output() const {
    const auto& r = run().reference_output();
    return {py::array_t<double>(static_cast<py::ssize_t>(r.values.size()), r.values.data()), r.exponent};
  }

  // The run is over: its tensors are let go.
  PyRecords take_records() {
    PyRecords records(run().take_records(), widths_, batch_, with_reference_);
    run_.reset();
    return records;
  }

 private:
  // Between layers: let Ctrl-C through, and tell progress(done, total) where one was given.
  static chain::Poll poll_of(const py::object& progress) {
    PyObject* callback = progress.is_none() ? nullptr : progress.ptr();
    return [callback](std::int64_t done, std::int64_t total) {
      const py::gil_scoped_acquire acquire;
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (callback) py::reinterpret_borrow<py::object>(callback)(done, total);
    };
  }

  chain::Run& run() const {
    base::expects(run_ != nullptr, "probe: the records were taken already");
    return *run_;
  }

  bool with_reference_;
  std::int64_t batch_;
  std::vector<std::int64_t> widths_;
  std::vector<py::array> kept_;
  std::unique_ptr<chain::Run> run_;
};

}  // namespace

void bind_chain(py::module_& m) {
  py::class_<PyRun>(m, "ChainRun")
      .def(py::init<const std::vector<LayerTuple>&, const Bits&, std::int64_t, int, int, int, int, int, int,
                    std::uint64_t, bool, double, bool, bool, bool>(),
           py::arg("layers"), py::arg("input"), py::arg("batch"), py::arg("storage"), py::arg("operands"),
           py::arg("accumulate"), py::arg("rounding"), py::arg("overflow"), py::arg("subnormals"), py::arg("seed"),
           py::arg("stored_output_derivative"), py::arg("loss_scale"), py::arg("with_reference"),
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
