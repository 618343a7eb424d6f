// The one symbol that a library of device kernels exports.
#include "cuda/kernels.hpp"
#include "cuda/runtime.hpp"

extern "C" __attribute__((visibility("default"))) const gradkern::executor::DeviceTable* gradkern_device_table() {
  using namespace gradkern::cuda;
  static const gradkern::executor::DeviceTable table{
      gradkern::executor::device_table_version,
      runtime_name,
      device_count,
      describe,
      matrix_unit,
      error_text,
      set_device,
      get_device,
      device_of,
      allocate,
      release,
      allocate_host,
      release_host,
      copy,
      clear,
      synchronize,
      stream_wait,
      stream_create,
      stream_destroy,
      convert,
      products,
      matvec,
      activation_forward,
      activation_backward,
      statistics,
      count_patterns,
      errors,
      clip_survey,
      clip_scale,
      clip_clamp,
      update,
      elementary_f32,
      elementary_f64,
  };
  return &table;
}
