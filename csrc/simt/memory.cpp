#include "simt/memory.hpp"

namespace gradkern::simt {

void access(const Site& site, const void* address, unsigned bytes) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes) {
    fail(site, "the address is no multiple of " + std::to_string(bytes) + " bytes");
  }
  if (running->block->launch->counted) count_access(site, address, bytes);
}

void cp_async(const Site& site, void* shared, const void* global, unsigned bytes, unsigned source_bytes) {
  if (source_bytes > bytes) fail(site, "more source bytes than bytes");
  access({"cp_async, to shared", site.line, site.file, site.function}, shared, bytes);
  access({"cp_async, from global", site.line, site.file, site.function}, global, bytes);
  std::memset(shared, 0xFF, bytes);  // NaN until it lands
  running->copies.push_back({shared, global, bytes, source_bytes, running->copy_group});
}

void cp_async_commit() { ++running->copy_group; }

void cp_async_wait(unsigned groups_left) {
  Thread& thread = *running;
  auto& copies = thread.copies;
  std::size_t landed = 0;
  for (; landed < copies.size() && copies[landed].group + groups_left < thread.copy_group; ++landed) {
    const Copy& copy = copies[landed];
    if (copy.source_bytes) std::memcpy(copy.to, copy.from, copy.source_bytes);
    std::memset(static_cast<std::byte*>(copy.to) + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
  }
  copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(landed));
}

}  // namespace gradkern::simt
