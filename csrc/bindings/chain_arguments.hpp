// What both kinds of chain take from Python, and give back.
#pragma once

#include <functional>
#include <optional>

#include "base/expects.hpp"
#include "bindings/array_view.hpp"
#include "bindings/summary.hpp"
#include "chain/recorder.hpp"

namespace gradkern::bindings {

// (bits, format) of an argument; who keeps a Source of it keeps the array.
using Bits = std::pair<py::array, int>;
using Doubles = py::array_t<double, py::array::c_style>;

inline chain::Source source_of(const Bits& bits) {
  const auto format = format_from(bits.second);
  return {format, bits_of(bits.first, format), bits.first.size()};
}

inline py::array_t<double> array_of(const chain::Values& values) {
  return py::array_t<double>(static_cast<py::ssize_t>(values.size()), values.data());
}

inline chain::Values vector_of(const Doubles& array) { return {array.data(), array.data() + array.size()}; }

inline chain::Activation activation_from(int activation, double alpha) { return {activation_from(activation), alpha}; }

// Between layers: let Ctrl-C through, and tell progress(done, total) where one was given.
inline chain::Poll poll_of(const py::object& progress) {
  PyObject* callback = progress.is_none() ? nullptr : progress.ptr();
  return [callback](std::int64_t done, std::int64_t total) {
    const py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (callback) py::reinterpret_borrow<py::object>(callback)(done, total);
  };
}

// What a run recorded. A record becomes a dict when it is asked for: most of a large report never is.
class PyRecords {
 public:
  using Shape = std::vector<std::int64_t>;
  using ShapeOf = std::function<Shape(const chain::Record&)>;

  PyRecords(std::vector<chain::Record> records, ShapeOf shape_of, bool with_reference)
      : records_(std::move(records)), shape_of_(std::move(shape_of)), with_reference_(with_reference) {}

  std::size_t size() const { return records_.size(); }
  py::dict at(py::ssize_t index) const;

 private:
  std::vector<chain::Record> records_;
  ShapeOf shape_of_;
  bool with_reference_;
};

}  // namespace gradkern::bindings
