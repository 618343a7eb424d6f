// What the bind_<concept>.cpp files share: arrays of raw bits come in with the number of their format.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "executor/registry.hpp"

namespace gradkern::bindings {

namespace py = pybind11;

void bind_system(py::module_& m);
void bind_formats(py::module_& m);
void bind_dlpack(py::module_& m);
void bind_device(py::module_& m);
void bind_activation(py::module_& m);
void bind_dense(py::module_& m);
void bind_mma(py::module_& m);
void bind_statistics(py::module_& m);
void bind_chain(py::module_& m);
void bind_recurrence(py::module_& m);
void bind_clip(py::module_& m);
void bind_update(py::module_& m);
void bind_jacobian(py::module_& m);

formats::FormatId format_from(int id);
ops::ActivationId activation_from(int id);

// An array for a wide result (executor::wide_format).
py::array wide_array(formats::FormatId computed_in, std::vector<py::ssize_t> shape);

py::dict counts_to_dict(const ops::RoundingCounts& counts);
formats::Mode mode_from(int rounding, int overflow, int subnormals, std::uint64_t seed);

}  // namespace gradkern::bindings
