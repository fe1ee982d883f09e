package cpu

import (
	"bytes"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size that large mappings are rounded and aligned to.
const hugePage = 2 << 20

// mapMemory maps zeroed private memory. With huge set, memory of 2 MiB and more is aligned to that
// and the kernel is asked to back it with huge pages: streaming kernels otherwise spend their time
// on page walks. Less memory would only be rounded up to a huge page and cleared whole.
func mapMemory(size int, huge bool) ([]byte, error) {
	if !huge || size < hugePage {
		return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	}
	size = (size + hugePage - 1) &^ (hugePage - 1)
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(size+hugePage), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	head := uintptr(-int64(uintptr(p)) & (hugePage - 1))
	if head > 0 {
		if err := unix.MunmapPtr(p, head); err != nil {
			return nil, err
		}
	}
	start := unsafe.Add(p, head)
	if tail := hugePage - head; tail > 0 {
		if err := unix.MunmapPtr(unsafe.Add(start, size), tail); err != nil {
			return nil, err
		}
	}
	mem := unsafe.Slice((*byte)(start), size)
	// Refusal only costs speed: a kernel may be built without huge pages.
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	return mem, nil
}

// clearMemory makes mapped memory zero by giving its pages back.
func clearMemory(mem []byte) {
	if unix.Madvise(mem, unix.MADV_DONTNEED) != nil {
		clear(mem)
	}
}

// PageBytes is the size of the pages that an arena of that size takes memory in.
func PageBytes(arena int64) int64 {
	if arena >= hugePage {
		if b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); err == nil && !bytes.Contains(b, []byte("[never]")) {
			return hugePage
		}
	}
	return int64(os.Getpagesize())
}

func unmapMemory(mem []byte) error {
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(mem)), uintptr(len(mem)))
}

func protectMemory(mem []byte, write, exec bool) error {
	prot := unix.PROT_READ
	if write {
		prot |= unix.PROT_WRITE
	}
	if exec {
		prot |= unix.PROT_EXEC
	}
	return unix.Mprotect(mem, prot)
}

// guardMemory makes any access to mem a fault.
func guardMemory(mem []byte) error { return unix.Mprotect(mem, unix.PROT_NONE) }

// allowedCPUs lists the processors this process may run on.
func allowedCPUs() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var cpus []int
	for i := 0; i < len(set)*64; i++ {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus
}

// pinThread binds the calling thread, which must be locked, to one processor.
func pinThread(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set)
}
