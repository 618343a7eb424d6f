#include "bindings/module.hpp"

#include "cpu/executors.hpp"

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "gradkern's kernels: formats, activations, dense products, statistics and chains over raw bits.";
  gradkern::cpu::register_executors();
  gradkern::bindings::bind_system(m);
  gradkern::bindings::bind_formats(m);
  gradkern::bindings::bind_dlpack(m);
  gradkern::bindings::bind_activation(m);
  gradkern::bindings::bind_dense(m);
  gradkern::bindings::bind_mma(m);
  gradkern::bindings::bind_statistics(m);
  gradkern::bindings::bind_chain(m);
  gradkern::bindings::bind_recurrence(m);
  gradkern::bindings::bind_clip(m);
  gradkern::bindings::bind_update(m);
  gradkern::bindings::bind_jacobian(m);
}
