#include "bindings/device_array.hpp"

#include "base/expects.hpp"
#include "executor/library.hpp"

namespace gradkern::bindings {
namespace {

struct Named {
  const char* name;
  dlpack::DataType type;
};

constexpr Named stored[] = {
    {"float64", {dlpack::code_float, 64, 1}},
    {"float32", {dlpack::code_float, 32, 1}},
    {"float16", {dlpack::code_float, 16, 1}},
    {"bfloat16", {dlpack::code_bfloat, 16, 1}},
    {"float8_e4m3fn", {dlpack::code_float8_e4m3fn, 8, 1}},
    {"float8_e5m2", {dlpack::code_float8_e5m2, 8, 1}},
    {"uint8", {dlpack::code_uint, 8, 1}},
    {"uint16", {dlpack::code_uint, 16, 1}},
    {"uint32", {dlpack::code_uint, 32, 1}},
    {"uint64", {dlpack::code_uint, 64, 1}},
};

}  // namespace

dlpack::DataType type_of(const std::string& dtype) {
  for (const Named& s : stored)
    if (dtype == s.name) return s.type;
  throw py::type_error("dtype must be a floating-point format of gradkern, got " + dtype);
}

Scope::Scope(const Place& place)
    : table_(place.table()), device_(place.device), stream_before_(executor::current_stream()) {
  place.check(table_.get_device(&before_), "get_device");
  if (before_ != device_) place.check(table_.set_device(device_), "set_device");
  executor::set_current_stream(place.stream);
}

Scope::~Scope() {
  executor::set_current_stream(stream_before_);
  if (before_ != device_) table_.set_device(before_);
}

DeviceMemory::DeviceMemory(const Place& place, std::int64_t bytes) : place_(place) {
  const Scope scope(place_);
  place_.check(place_.table().allocate(&pointer_, bytes, place_.stream), "allocate");
}

DeviceMemory::~DeviceMemory() {
  if (owner_ || pointer_ == nullptr) return;
  try {
    const Scope scope(place_);
    place_.table().release(pointer_, place_.stream);
  } catch (const base::DeviceError&) {  // the process is ending, and its device with it
  }
}

DeviceArray DeviceArray::empty(const Place& place, const std::string& dtype, std::vector<py::ssize_t> shape) {
  DeviceArray made{place, nullptr, std::move(shape), dtype, true};
  for (const py::ssize_t n : made.shape) base::expects(n >= 0, "DeviceArray: a dimension is negative");
  made.memory = std::make_shared<DeviceMemory>(place, made.nbytes());
  return made;
}

py::ssize_t DeviceArray::size() const {
  py::ssize_t count = 1;
  for (const py::ssize_t n : shape) count *= n;
  return count;
}

py::ssize_t DeviceArray::itemsize() const { return type_of(dtype).bits / 8; }

std::string DeviceArray::device() const {
  return std::string(place.executor->name) + ":" + std::to_string(place.device);
}

Place place_of(const std::string& library, int device, std::uintptr_t stream, py::object stream_owner) {
  return {&executor::device(library), device, reinterpret_cast<executor::Stream>(stream), std::move(stream_owner)};
}

DeviceArray borrow(Place place, void* pointer, std::vector<py::ssize_t> shape, const std::string& dtype,
                   py::object owner, bool writeable) {
  DeviceArray view{place, nullptr, std::move(shape), dtype, writeable};
  if (view.nbytes() != 0) {
    int found = -1;
    place.check(place.table().device_of(pointer, &found), "device_of");
    if (found < 0 || (place.device >= 0 && found != place.device))
      throw py::type_error("its memory is not on " + view.device() + ", as it says");
    place.device = view.place.device = found;
  } else if (place.device < 0) {
    place.device = view.place.device = 0;
  }
  view.memory = std::make_shared<DeviceMemory>(place, pointer, std::move(owner));
  return view;
}

}  // namespace gradkern::bindings
