// A Summary as the dict that Python's TensorStats is made from.
#pragma once

#include "bindings/module.hpp"
#include "chain/summary.hpp"

namespace gradkern::bindings {

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
  d["l1"] = s.l1;
  d["squares"] = py::make_tuple(s.squares.big, s.squares.medium, s.squares.small);
  d["finite_count"] = s.finite_count;
  d["mean"] = s.mean;
  d["m2"] = s.m2;
  d["first_binade"] = s.first_binade;
  d["binades"] = py::array_t<std::int64_t>(static_cast<py::ssize_t>(s.binades.size()), s.binades.data());
  d["powers"] = py::array_t<std::int64_t>(static_cast<py::ssize_t>(s.powers.size()), s.powers.data());
  return d;
}

}  // namespace gradkern::bindings
