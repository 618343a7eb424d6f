// Statistics of one tensor.
#include <memory>

#include "bindings/module.hpp"
#include "bindings/summary.hpp"

namespace gradkern::bindings {

void bind_statistics(py::module_& m) {
  m.def(
      "statistics",
      [](const py::array& x, int format) {
        auto full = std::make_unique<ops::Statistics>();
        executor::StatisticsArgs args{x.size(), format_from(format), nullptr, full.get()};
        args.data = bits_of(x, args.format);
        {
          py::gil_scoped_release release;
          const auto& e = executor::current();
          e.statistics(e, args);
        }
        return summary_to_dict(chain::trim(*full));
      },
      py::arg("x"), py::arg("format"));
}

}  // namespace gradkern::bindings
