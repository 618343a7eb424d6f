#include "executor/library.hpp"

#include <dlfcn.h>
#include <link.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "base/expects.hpp"
#include "executor/registry.hpp"

namespace gradkern::executor {
namespace {

// Beside the module that this code is linked into.
std::string path_of(const std::string& name) {
  Dl_info here{};
  dladdr(reinterpret_cast<const void*>(&path_of), &here);
  const std::string self = here.dli_fname ? here.dli_fname : "";
  const auto slash = self.rfind('/');
  return (slash == std::string::npos ? "" : self.substr(0, slash + 1)) + "libgradkern_" + name + ".so";
}

// The loader of a file that was cut short would read past its end, and the process would be gone. The section headers
// of a library are what comes last.
bool is_whole(FILE* file) {
  ElfW(Ehdr) header{};
  if (std::fread(&header, sizeof header, 1, file) != 1 || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
    return false;
  std::fseek(file, 0, SEEK_END);
  const auto size = static_cast<std::uint64_t>(std::ftell(file));
  return header.e_shoff + std::uint64_t(header.e_shnum) * header.e_shentsize <= size;
}

struct Library {
  Executor executor{};
  std::string why_not;
};

std::string refusal(const std::string& name, const DeviceTable& table) {
  if (table.version != device_table_version) return "libgradkern_" + name + ".so is of another build";
  int count = 0;
  if (const int error = table.device_count(&count)) {
    if (name != "cuda") return table.error_text(error);
    if (void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL)) {
      dlclose(driver);
      return table.error_text(error);
    }
    return std::string("there is no CUDA driver: ") + dlerror();
  }
  return count == 0 ? "there is no device" : "";
}

Library open(const std::string& name) {
  Library library;
  const std::string path = path_of(name);
  if (FILE* file = std::fopen(path.c_str(), "rb")) {
    const bool whole = is_whole(file);
    std::fclose(file);
    if (!whole) {
      library.why_not = "libgradkern_" + name + ".so is broken: cut short, or no library";
      return library;
    }
  } else {
    library.why_not = "not part of this build: CPU only";
    return library;
  }
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: kernels may be running
  if (!handle) {
    library.why_not = dlerror();
    return library;
  }
  using Get = const DeviceTable* (*)();
  const auto get = reinterpret_cast<Get>(dlsym(handle, "gradkern_device_table"));
  if (!get) {
    library.why_not = "libgradkern_" + name + ".so exports no gradkern_device_table";
    return library;
  }
  library.why_not = refusal(name, *get());
  library.executor = device_executor(*get());
  return library;
}

const Library& library(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, Library> opened;
  base::expects(name == "cuda" || name == "simt", "device: must be 'cuda' or 'simt'");
  const std::lock_guard lock(mutex);
  const auto found = opened.find(name);
  return found != opened.end() ? found->second : opened.emplace(name, open(name)).first->second;
}

}  // namespace

const Executor& device(const std::string& name) {
  const Library& found = library(name);
  if (!found.why_not.empty()) throw base::DeviceError("device '" + name + "' cannot be used: " + found.why_not);
  return found.executor;
}

std::string why_not(const std::string& name) { return library(name).why_not; }

}  // namespace gradkern::executor
