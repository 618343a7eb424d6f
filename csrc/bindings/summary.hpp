// A Summary as the dict that Python's TensorStats is made from.
#pragma once

#include "bindings/module.hpp"
#include "chain/summary.hpp"

namespace gradkern::bindings {

inline py::tuple parts_to_tuple(const ops::SquareSum& s) { return py::make_tuple(s.big, s.medium, s.small); }

inline py::dict summary_to_dict(const chain::Summary& s) {
  py::dict d;
  d["size"] = s.size;
  d["nan"] = s.nan;
  d["pos_inf"] = s.pos_inf;
  d["neg_inf"] = s.neg_inf;
  d["zero"] = s.zero;
  d["negative"] = s.negative;
  d["subnormal"] = s.subnormal;
  d["first_nonfinite"] = s.first_nonfinite;
  d["amax"] = s.amax;
  d["amin"] = s.amin;
  d["finite"] = s.moments.finite;
  d["mean"] = s.moments.mean;
  d["mean_rest"] = s.moments.mean_rest;
  d["l1"] = s.moments.l1;
  d["deviations"] = parts_to_tuple(s.moments.deviations);
  d["squares"] = parts_to_tuple(s.moments.squares);
  d["first_binade"] = s.first_binade;
  const auto rows = static_cast<py::ssize_t>(s.cells.size()) / ops::cell_count;
  d["cells"] = py::array_t<std::int64_t>({rows, py::ssize_t(ops::cell_count)}, s.cells.data());
  return d;
}

}  // namespace gradkern::bindings
