// Wide loads and stores, and cp.async: copies to shared memory that land when their group is waited for.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt/executor.hpp"

namespace gradkern::simt {

// Before any access: aligned as the device wants it, and seen by the counters where they are on.
void access(const Site& site, const void* address, unsigned bytes);

template <class T>
T load(const Site& site, const void* from) {
  T value;
  access(site, from, sizeof value);
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
void store(const Site& site, void* to, const T& value) {
  access(site, to, sizeof value);
  std::memcpy(to, &value, sizeof value);
}

void cp_async(const Site& site, void* shared, const void* global, unsigned bytes, unsigned source_bytes);
void cp_async_commit();
void cp_async_wait(unsigned groups_left);

}  // namespace gradkern::simt

namespace gradkern::cuda {

template <class T>
T* in_global(T* p) {
  return p;
}

// One value of 1, 2, 4, 8 or 16 bytes in shared or global memory, seen by the counters of traffic.
template <class T>
T load(const T* from, GRADKERN_SITE) {
  return simt::load<T>({"load", line, file, function}, from);
}
template <class T>
void store(T* to, const std::type_identity_t<T>& value, GRADKERN_SITE) {
  simt::store<T>({"store", line, file, function}, to, value);
}
inline uint2 load_64(const void* from, GRADKERN_SITE) {
  return simt::load<uint2>({"load_64", line, file, function}, from);
}
inline uint4 load_128(const void* from, GRADKERN_SITE) {
  return simt::load<uint4>({"load_128", line, file, function}, from);
}
inline void store_64(void* to, uint2 value, GRADKERN_SITE) {
  simt::store({"store_64", line, file, function}, to, value);
}
inline void store_128(void* to, uint4 value, GRADKERN_SITE) {
  simt::store({"store_128", line, file, function}, to, value);
}
inline void store_global_128(void* to, uint4 value, GRADKERN_SITE) {
  simt::store({"store_global_128", line, file, function}, to, value);
}

// Copies source_bytes from global to shared memory and fills the rest of the 16, 8 or 4 bytes with zeros.
inline void cp_async_16(void* shared, const void* global, unsigned source_bytes = 16, GRADKERN_SITE) {
  simt::cp_async({"cp_async_16", line, file, function}, shared, global, 16, source_bytes);
}
inline void cp_async_16_or_zero(void* shared, const void* global, bool there, GRADKERN_SITE) {
  simt::cp_async({"cp_async_16_or_zero", line, file, function}, shared, global, 16, there ? 16 : 0);
}
inline void cp_async_8(void* shared, const void* global, unsigned source_bytes = 8, GRADKERN_SITE) {
  simt::cp_async({"cp_async_8", line, file, function}, shared, global, 8, source_bytes);
}
inline void cp_async_4(void* shared, const void* global, unsigned source_bytes = 4, GRADKERN_SITE) {
  simt::cp_async({"cp_async_4", line, file, function}, shared, global, 4, source_bytes);
}
inline void cp_async_commit() { simt::cp_async_commit(); }
// Waits until at most `groups_left` of the newest committed groups are under way.
template <unsigned groups_left>
void cp_async_wait() {
  simt::cp_async_wait(groups_left);
}

}  // namespace gradkern::cuda
