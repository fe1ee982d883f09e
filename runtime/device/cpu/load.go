package cpu

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sort"
	"unsafe"
)

// Library is a shared object mapped into memory. Its code stays mapped until Close.
type Library struct {
	mem     []byte
	symbols map[string]uintptr
}

// machines gives the ELF machine of each architecture that has a trampoline.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// Load maps a self-contained shared object and returns its exported functions. The object must
// be for this machine's architecture and have no imports, no dynamic relocations, no
// initialisers and no thread-local data: the kernels that codegen/cpu links have none, and
// anything else would need a real dynamic loader.
func Load(so []byte) (*Library, error) {
	want, ok := machines[runtime.GOARCH]
	if !ok || !canCall {
		return nil, fmt.Errorf("cpu: kernels cannot be loaded on %s/%s; use linux/amd64 or linux/arm64", runtime.GOOS, runtime.GOARCH)
	}
	f, err := elf.NewFile(bytes.NewReader(so))
	if err != nil {
		return nil, fmt.Errorf("cpu: not a shared object: %v", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Type != elf.ET_DYN || f.Machine != want {
		return nil, fmt.Errorf("cpu: object is %v %v %v, this machine needs %v %v %v; compile the kernels for it", f.Class, f.Type, f.Machine, elf.ELFCLASS64, elf.ET_DYN, want)
	}
	if err := selfContained(f); err != nil {
		return nil, fmt.Errorf("cpu: object is not self-contained: %v", err)
	}
	size, err := checkSegments(f, uint64(len(so)))
	if err != nil {
		return nil, fmt.Errorf("cpu: bad shared object: %v", err)
	}
	mem, err := mapMemory(int(size), false)
	if err != nil {
		return nil, fmt.Errorf("cpu: mapping %d bytes for kernels: %v", size, err)
	}
	l := &Library{mem: mem, symbols: map[string]uintptr{}}
	if err := l.fill(f, so); err != nil {
		unmapMemory(mem)
		return nil, fmt.Errorf("cpu: loading kernels: %v", err)
	}
	return l, nil
}

// selfContained reports what in f would need a dynamic loader.
func selfContained(f *elf.File) error {
	imports, err := f.ImportedSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return err
	}
	if len(imports) > 0 {
		return fmt.Errorf("it imports %s and %d more symbols", imports[0].Name, len(imports)-1)
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	if len(libs) > 0 {
		return fmt.Errorf("it needs the library %s", libs[0])
	}
	for _, s := range f.Sections {
		switch s.Type {
		case elf.SHT_RELA, elf.SHT_REL:
			if s.Size > 0 && s.Flags&elf.SHF_ALLOC != 0 {
				return fmt.Errorf("it has dynamic relocations in %s", s.Name)
			}
		case elf.SHT_INIT_ARRAY, elf.SHT_FINI_ARRAY, elf.SHT_PREINIT_ARRAY:
			return fmt.Errorf("it has initialisers in %s", s.Name)
		}
	}
	for _, tag := range []elf.DynTag{elf.DT_RELASZ, elf.DT_RELSZ, elf.DT_PLTRELSZ, elf.DT_INIT, elf.DT_INIT_ARRAYSZ} {
		v, err := f.DynValue(tag)
		if err != nil {
			return err
		}
		for _, x := range v {
			if x != 0 {
				return fmt.Errorf("its dynamic section has %v", tag)
			}
		}
	}
	return nil
}

// checkSegments checks the bounds of the loadable segments and returns the size of their image.
func checkSegments(f *elf.File, fileSize uint64) (uint64, error) {
	page := uint64(os.Getpagesize())
	var end uint64
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_TLS, elf.PT_INTERP:
			return 0, fmt.Errorf("segment of type %v", p.Type)
		case elf.PT_LOAD:
		default:
			continue
		}
		if p.Filesz > p.Memsz || p.Off > fileSize || p.Filesz > fileSize-p.Off {
			return 0, errors.New("a segment lies outside the file")
		}
		if p.Vaddr > math.MaxInt32 || p.Memsz > math.MaxInt32 {
			return 0, errors.New("a segment is larger than 2 GiB")
		}
		if p.Flags&elf.PF_W != 0 && p.Flags&elf.PF_X != 0 {
			return 0, errors.New("a segment is writable and executable")
		}
		if p.Vaddr&^(page-1) < end {
			return 0, fmt.Errorf("two segments share a page of %d bytes", page)
		}
		end = (p.Vaddr + p.Memsz + page - 1) &^ (page - 1)
	}
	if end == 0 {
		return 0, errors.New("no loadable segment")
	}
	return end, nil
}

func (l *Library) fill(f *elf.File, so []byte) error {
	page := uint64(os.Getpagesize())
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			copy(l.mem[p.Vaddr:], so[p.Off:p.Off+p.Filesz])
		}
	}
	syncInstructions(uintptr(unsafe.Pointer(&l.mem[0])), uintptr(len(l.mem)))
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		lo, hi := p.Vaddr&^(page-1), (p.Vaddr+p.Memsz+page-1)&^(page-1)
		if err := protectMemory(l.mem[lo:hi], p.Flags&elf.PF_W != 0, p.Flags&elf.PF_X != 0); err != nil {
			return err
		}
	}
	syms, err := f.DynamicSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return err
	}
	base := uintptr(unsafe.Pointer(&l.mem[0]))
	for _, s := range syms {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Section == elf.SHN_UNDEF {
			continue
		}
		if s.Value >= uint64(len(l.mem)) {
			return fmt.Errorf("symbol %s lies outside the image", s.Name)
		}
		l.symbols[s.Name] = base + uintptr(s.Value)
	}
	return nil
}

// Symbol returns the address of an exported function, for Call and Pool.Run.
func (l *Library) Symbol(name string) (uintptr, error) {
	if a, ok := l.symbols[name]; ok {
		return a, nil
	}
	return 0, fmt.Errorf("cpu: no kernel %q in the library; regenerate it together with its kernels", name)
}

// Symbols lists the exported functions in order of name.
func (l *Library) Symbols() []string {
	names := make([]string, 0, len(l.symbols))
	for n := range l.symbols {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Close unmaps the library; its addresses must not be called afterwards.
func (l *Library) Close() error {
	m := l.mem
	l.mem, l.symbols = nil, nil
	if m == nil {
		return nil
	}
	return unmapMemory(m)
}
