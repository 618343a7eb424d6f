// update: one step of gradient descent for one tensor, with the counts of what rounding made of it.
#include <cmath>

#include "base/expects.hpp"
#include "bindings/array_view.hpp"

namespace gradkern::bindings {
namespace {

py::dict update_counts(const ops::UpdateCounts& c) {
  py::dict d;
  d["unchanged"] = c.unchanged;
  d["applied"] = c.applied;
  d["lost"] = c.lost;
  d["overflow"] = c.overflow;
  d["nonfinite"] = c.nonfinite;
  d["flushed"] = c.flushed;
  d["subnormal"] = c.subnormal;
  d["first_overflow"] = c.first_overflow;
  d["first_nonfinite"] = c.first_nonfinite;
  d["wanted"] = py::make_tuple(c.wanted.big, c.wanted.medium, c.wanted.small);
  d["made"] = py::make_tuple(c.made.big, c.made.medium, c.made.small);
  return d;
}

}  // namespace

void bind_update(py::module_& m) {
  m.def(
      "update",
      [](const py::array& weight, int format, const py::array& gradient, int gradient_format, py::array updated,
         double rate, int rounding, int overflow, int subnormals, std::uint64_t seed, std::uint64_t stream) {
        base::expects(gradient.size() == weight.size() && updated.size() == weight.size(),
                      "update: weight, gradient and updated differ in size");
        base::expects(std::isfinite(rate), "update: the rate must be finite");
        ops::UpdateCounts counts;
        executor::UpdateArgs args{};
        args.size = weight.size();
        args.format = format_from(format);
        args.weight = bits_of(weight, args.format);
        args.gradient_format = format_from(gradient_format);
        args.gradient = bits_of(gradient, args.gradient_format);
        args.updated = writable_bits_of(updated, args.format);
        args.rate = rate;
        args.mode = mode_from(rounding, overflow, subnormals, seed);
        args.stream = stream;
        args.counts = &counts;
        {
          py::gil_scoped_release release;
          const auto& e = executor::current();
          e.update(e, args);
        }
        return update_counts(counts);
      },
      py::arg("weight"), py::arg("format"), py::arg("gradient"), py::arg("gradient_format"), py::arg("updated"),
      py::arg("rate"), py::arg("rounding"), py::arg("overflow"), py::arg("subnormals"), py::arg("seed"),
      py::arg("stream"));
}

}  // namespace gradkern::bindings
