// An argument of the kernels, NumPy's array or one on a device, and where a call computes.
#pragma once

#include <initializer_list>

#include "bindings/device_array.hpp"

namespace gradkern::bindings {

class ArrayView {
 public:
  ArrayView() = default;
  ArrayView(const py::array& array);  // NOLINT(google-explicit-constructor)
  ArrayView(const DeviceArray& array, py::object owner);

  const void* data() const { return data_; }
  void* mutable_data() const;
  py::ssize_t size() const { return size_; }
  py::ssize_t ndim() const { return ndim_; }
  py::ssize_t shape(py::ssize_t axis) const { return shape_[axis]; }
  py::ssize_t itemsize() const { return itemsize_; }
  bool contiguous() const { return contiguous_; }
  const Place* place() const { return place_; }  // null: the host

 private:
  py::object owner_;
  void* data_ = nullptr;
  const py::ssize_t* shape_ = nullptr;
  py::ssize_t size_ = 0, ndim_ = 0, itemsize_ = 0;
  bool contiguous_ = true, writeable_ = false;
  const Place* place_ = nullptr;
};

// Where a call computes while this lives: on the device of its arrays, in the order of the first one's stream, else where
// the thread computes. Arrays of the host are copied to the device.
class Run {
 public:
  Run(std::initializer_list<const ArrayView*> arrays);
  explicit Run(const std::vector<ArrayView>& arrays);

  const Place* place() const { return place_; }
  const executor::Executor& executor() const { return place_ ? *place_->executor : executor::current(); }
  // The same, for a list of these very arrays: where all lie on the device, nobody needs to ask the driver for each.
  executor::Executor executor_of_list() const {
    executor::Executor e = executor();
    e.resident = place_ != nullptr && !on_host_;
    return e;
  }

  struct Made {
    py::object array;
    void* data;
  };
  // For a wide result (executor::wide_format), beside the arguments.
  Made wide(formats::FormatId computed_in, std::vector<py::ssize_t> shape) const;

 private:
  void meet(const ArrayView& array);

  const Place* place_ = nullptr;
  bool on_host_ = false;  // any of them
  executor::Stream waited_for_ = nullptr;
  std::optional<Scope> scope_;
};

// The data of a C-contiguous array whose items are as wide as the format's container.
const void* bits_of(const ArrayView& array, formats::FormatId format);
void* writable_bits_of(const ArrayView& array, formats::FormatId format);

}  // namespace gradkern::bindings

namespace pybind11::detail {

template <>
struct type_caster<gradkern::bindings::ArrayView> {
  PYBIND11_TYPE_CASTER(gradkern::bindings::ArrayView, const_name("Array"));

  bool load(handle source, bool) {
    using namespace gradkern::bindings;
    if (isinstance<array>(source)) {
      value = ArrayView(reinterpret_borrow<array>(source));
    } else if (isinstance<DeviceArray>(source)) {
      value = ArrayView(source.cast<const DeviceArray&>(), reinterpret_borrow<object>(source));
    } else {
      return false;
    }
    return true;
  }

  static handle cast(const gradkern::bindings::ArrayView&, return_value_policy, handle) = delete;
};

}  // namespace pybind11::detail
