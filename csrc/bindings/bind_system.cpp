// Instruction sets, threads, and how C++ errors reach Python.
#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "bindings/module.hpp"

namespace gradkern::bindings {

void bind_system(py::module_& m) {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const base::UnsupportedIsa& error) {
      py::set_error(py::module_::import("gradkern.errors").attr("UnsupportedIsaError"), error.what());
    }
  });
  m.def("isa", [] { return std::string(executor::current().name); }, "The instruction set in use.");
  m.def("select_isa", [](const std::string& name) { executor::select(name); }, py::arg("name"));
  m.def(
      "isas",
      [] {
        std::vector<std::tuple<std::string, bool, std::string>> list;
        for (const auto& c : executor::candidates()) list.emplace_back(c.executor.name, c.usable, c.why_not);
        return list;
      },
      "(name, usable, why not) of every instruction set built in.");
  m.def("num_threads", &base::num_threads);
  m.def("set_num_threads", &base::set_num_threads, py::arg("count"), py::call_guard<py::gil_scoped_release>());
  m.attr("compiler") = __VERSION__;
}

}  // namespace gradkern::bindings
