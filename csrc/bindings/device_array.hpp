// Arrays in a device's memory: our own, or a producer's that is kept alive for as long as anything looks at it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/dlpack.hpp"
#include "bindings/module.hpp"
#include "executor/device.hpp"

namespace gradkern::bindings {

// Where an array lies, and the stream that work on it is enqueued on.
struct Place {
  const executor::Executor* executor;
  int device;
  executor::Stream stream;
  py::object stream_owner;

  const executor::DeviceTable& table() const { return *executor->device; }
  void check(int error, const char* doing) const { executor::check(table(), error, doing); }
};

// The calling thread's device and stream are those of a place for as long as this lives.
class Scope {
 public:
  explicit Scope(const Place& place);
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope();

 private:
  const executor::DeviceTable& table_;
  int before_ = 0, device_;
  executor::Stream stream_before_;
};

class DeviceMemory {
 public:
  DeviceMemory(const Place& place, std::int64_t bytes);
  DeviceMemory(const Place& place, void* pointer, py::object owner)
      : place_(place), pointer_(pointer), owner_(std::move(owner)) {}
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory();

  void* pointer() const { return pointer_; }
  const Place& place() const { return place_; }

 private:
  Place place_;
  void* pointer_ = nullptr;
  py::object owner_;  // of a producer's memory
};

// C-contiguous. Views share their memory.
struct DeviceArray {
  Place place;
  std::shared_ptr<DeviceMemory> memory;
  std::vector<py::ssize_t> shape;
  std::string dtype;  // NumPy's name, or that of ml_dtypes
  bool writeable = true;

  static DeviceArray empty(const Place& place, const std::string& dtype, std::vector<py::ssize_t> shape);

  void* data() const { return memory->pointer(); }
  py::ssize_t size() const;
  py::ssize_t itemsize() const;
  py::ssize_t nbytes() const { return size() * itemsize(); }
  std::string device() const;  // "cuda:0"
};

// DLPack's type of a dtype's name. Throws for a name that is not stored anywhere.
dlpack::DataType type_of(const std::string& dtype);
std::string type_name(dlpack::DataType type);

// The place of memory of a usable device, by its library's name; throws what that library's refusal says.
Place place_of(const std::string& library, int device, std::uintptr_t stream, py::object stream_owner);

// Of a producer that says where its memory is; `device` below 0 is looked up. Refuses memory that is not there.
DeviceArray borrow(Place place, void* pointer, std::vector<py::ssize_t> shape, const std::string& dtype,
                   py::object owner, bool writeable);

}  // namespace gradkern::bindings
