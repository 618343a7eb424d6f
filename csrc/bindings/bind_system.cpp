// Instruction sets, threads, and how C++ errors reach Python.
#include <algorithm>
#include <functional>
#include <numeric>

#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "bindings/module.hpp"
#include "executor/library.hpp"

namespace gradkern::bindings {
namespace {

// The least that any measurement does: every word is loaded, on all threads. What benchmarks call the read roof.
std::uint64_t read_words(const py::array& array) {
  const auto* words = static_cast<const std::uint64_t*>(array.data());
  const std::int64_t count = array.nbytes() / 8, chunk = 1 << 16;
  std::vector<std::uint64_t> seen(static_cast<std::size_t>(base::chunk_count(count, chunk)));
  const py::gil_scoped_release release;
  base::parallel_for(base::chunk_count(count, chunk), [&](std::int64_t c) {
    std::uint64_t any[32] = {};
    const std::int64_t end = std::min(count, (c + 1) * chunk);
    std::int64_t i = c * chunk;
    for (; i + 32 <= end; i += 32)
      for (int j = 0; j < 32; ++j) any[j] |= words[i + j];
    for (; i < end; ++i) any[0] |= words[i];
    for (const std::uint64_t word : any) seen[static_cast<std::size_t>(c)] |= word;
  });
  return std::accumulate(seen.begin(), seen.end(), std::uint64_t(0), std::bit_or<>());
}

}  // namespace

void bind_system(py::module_& m) {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const base::UnsupportedIsa& error) {
      py::set_error(py::module_::import("gradkern.errors").attr("UnsupportedIsaError"), error.what());
    } catch (const base::DeviceError& error) {
      py::set_error(py::module_::import("gradkern.errors").attr("CudaError"), error.what());
    }
  });
  m.def("isa", [] { return std::string(executor::host().name); }, "The instruction set in use.");
  m.def("select_isa", [](const std::string& name) { executor::select(name); }, py::arg("name"));
  m.def(
      "isas",
      [] {
        std::vector<std::tuple<std::string, bool, std::string>> list;
        for (const auto& c : executor::candidates()) list.emplace_back(c.executor.name, c.usable, c.why_not);
        return list;
      },
      "(name, usable, why not) of every instruction set built in.");
  m.def("device_why_not", &executor::why_not, py::arg("name"), "'' where a device can be used, else exactly why not.");
  m.def(
      "use_device",
      [](const std::optional<std::string>& name) {
        const executor::Executor* before = executor::used_device();
        executor::use(name ? &executor::device(*name) : nullptr);
        return before ? std::optional<std::string>(before->name) : std::nullopt;
      },
      py::arg("name").none(true), "Compute on a device in this thread, or on the CPU; returns what it was before.");
  m.def("num_threads", &base::num_threads);
  m.def("set_num_threads", &base::set_num_threads, py::arg("count"), py::call_guard<py::gil_scoped_release>());
  m.def("read_words", &read_words, py::arg("array"), "The OR of all 8-byte words: reads an array and does no more.");
  m.def(
      "multiply_adds",
      [](std::int64_t rounds, bool wide) {
        base::expects(rounds >= 0, "multiply_adds: rounds must not be negative");
        const py::gil_scoped_release release;
        const auto& e = executor::current();
        return e.multiply_adds(e, wide, rounds);
      },
      py::arg("rounds"), py::arg("wide"), "Fused multiply-adds in registers on every thread; how many were done.");
  m.attr("compiler") = __VERSION__;
}

}  // namespace gradkern::bindings
