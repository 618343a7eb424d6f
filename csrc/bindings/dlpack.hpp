// The structs of DLPack's ABI, major version 1 (https://dmlc.github.io/dlpack/latest/c_api.html), and those that came before.
#pragma once

#include <cstdint>

namespace gradkern::bindings::dlpack {

inline constexpr std::uint32_t major_version = 1;
inline constexpr std::uint64_t read_only = 1;  // of VersionedTensor::flags

enum DeviceType : std::int32_t { cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13 };

enum TypeCode : std::uint8_t {
  code_int = 0,
  code_uint = 1,
  code_float = 2,
  code_bfloat = 4,
  code_bool = 6,
  code_float8_e4m3fn = 10,
  code_float8_e5m2 = 12,
};

struct Device {
  std::int32_t type;
  std::int32_t id;
};

struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null = C-contiguous, before version 1.2
  std::uint64_t byte_offset;
};

// In a capsule named "dltensor".
struct ManagedTensor {
  static constexpr const char *name = "dltensor", *used_name = "used_dltensor";
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};

// In a capsule named "dltensor_versioned". Of another major version, only the deleter may be touched.
struct VersionedTensor {
  static constexpr const char *name = "dltensor_versioned", *used_name = "used_dltensor_versioned";
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(VersionedTensor*);
  std::uint64_t flags;
  Tensor tensor;
};

// In a capsule named "dlpack_exchange_api" on an array type, since version 1.3: what gives that type's memory without
// Python. Functions return 0, or set a Python error. Of another major version, only the first three may be read.
struct ExchangeApi {
  static constexpr const char *name = "dlpack_exchange_api", *attribute = "__dlpack_c_exchange_api__";
  std::uint32_t major, minor;
  const ExchangeApi* previous;  // for consumers of an older major version, or null
  int (*allocate)(Tensor* prototype, VersionedTensor** out, void* context,
                  void (*set_error)(void* context, const char* kind, const char* message));
  int (*to_managed)(void* array, VersionedTensor** out);
  int (*from_managed)(VersionedTensor* tensor, void** array);
  int (*to_tensor)(void* array, Tensor* out);  // may be null; the array still owns the memory
  int (*current_stream)(DeviceType type, std::int32_t id, void** stream);
};

static_assert(sizeof(void*) != 8 || (sizeof(Tensor) == 48 && sizeof(ManagedTensor) == 64));
static_assert(sizeof(void*) != 8 || (sizeof(VersionedTensor) == 80 && sizeof(ExchangeApi) == 56));

}  // namespace gradkern::bindings::dlpack
