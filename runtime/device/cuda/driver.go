package cuda

import (
	"fmt"
	"os"
	"strings"
	"unsafe"
)

// library is where the driver is; the name is that of its stable interface.
const library = "libcuda.so.1"

// driver is the functions of the driver, with the types of cuda.h: CUdevice is an int32, CUdeviceptr
// a uint64, and handles (contexts, modules, functions, streams, events, graphs) are pointers.
// Where cuda.h maps a name to a version of it, that version is meant; see symbols.
type driver struct {
	path string

	init           func(flags uint32) int32
	driverVersion  func(version *int32) int32
	getErrorName   func(result int32, text **byte) int32
	getErrorString func(result int32, text **byte) int32

	deviceGetCount     func(n *int32) int32
	deviceGet          func(device *int32, number int32) int32
	deviceGetName      func(name *byte, size int32, device int32) int32
	deviceGetAttribute func(value *int32, attribute int32, device int32) int32
	deviceTotalMem     func(bytes *uintptr, device int32) int32
	contextRetain      func(context *uintptr, device int32) int32
	contextRelease     func(device int32) int32
	contextSetCurrent  func(context uintptr) int32

	moduleLoad   func(module *uintptr, image unsafe.Pointer, n uint32, options *int32, values *uintptr) int32
	moduleUnload func(module uintptr) int32
	moduleGet    func(function *uintptr, module uintptr, name *byte) int32
	functionSet  func(function uintptr, attribute, value int32) int32
	functionGet  func(value *int32, attribute int32, function uintptr) int32
	functionLoad func(function uintptr) int32 // nil before CUDA 12.4

	memInfo     func(free, total *uintptr) int32
	memAlloc    func(addr *uint64, bytes uintptr) int32
	memFree     func(addr uint64) int32
	hostAlloc   func(memory *unsafe.Pointer, bytes uintptr, flags uint32) int32
	hostFree    func(memory unsafe.Pointer) int32
	upload      func(to uint64, from unsafe.Pointer, bytes, stream uintptr) int32
	download    func(to unsafe.Pointer, from uint64, bytes, stream uintptr) int32
	memset8     func(addr uint64, value uint8, bytes, stream uintptr) int32
	encodeTiled func(tensorMap unsafe.Pointer, dataType, rank uint32, addr uint64, dims, strides *uint64, box, elementStrides *uint32, interleave, swizzle, promotion, fill uint32) int32 // nil before CUDA 12.0

	streamCreate  func(stream *uintptr, flags uint32) int32
	streamDestroy func(stream uintptr) int32
	streamWait    func(stream uintptr) int32
	captureBegin  func(stream uintptr, mode uint32) int32
	captureEnd    func(stream uintptr, graph *uintptr) int32
	// Later versions of these two tell of kinds of edges, too; drivers keep these.
	captureInfo   func(stream uintptr, status *int32, id *uint64, graph *uintptr, dependencies **uintptr, n *uintptr) int32 // nil before CUDA 11.3
	captureDepend func(stream uintptr, dependencies *uintptr, n uintptr, flags uint32) int32                                // nil before CUDA 11.3
	eventCreate   func(event *uintptr, flags uint32) int32
	eventDestroy  func(event uintptr) int32
	eventRecord   func(event, stream uintptr) int32
	eventElapsed  func(ms *float32, from, to uintptr) int32

	launch   func(function uintptr, gridX, gridY, gridZ, blockX, blockY, blockZ, shared uint32, stream uintptr, params, extra unsafe.Pointer) int32
	launchEx func(config *launchConfig, function uintptr, params, extra unsafe.Pointer) int32 // nil before CUDA 11.8

	graphInstantiate func(executable *uintptr, graph uintptr, flags uint64) int32
	graphLaunch      func(executable, stream uintptr) int32
	graphFree        func(graph uintptr) int32
	executableFree   func(executable uintptr) int32
}

// symbols are the names in the library, with where their addresses go. Those that are optional are
// missing in older drivers.
func (d *driver) symbols() []symbol {
	return []symbol{
		{"cuInit", &d.init, false},
		{"cuDriverGetVersion", &d.driverVersion, false},
		{"cuGetErrorName", &d.getErrorName, false},
		{"cuGetErrorString", &d.getErrorString, false},
		{"cuDeviceGetCount", &d.deviceGetCount, false},
		{"cuDeviceGet", &d.deviceGet, false},
		{"cuDeviceGetName", &d.deviceGetName, false},
		{"cuDeviceGetAttribute", &d.deviceGetAttribute, false},
		{"cuDeviceTotalMem_v2", &d.deviceTotalMem, false},
		{"cuDevicePrimaryCtxRetain", &d.contextRetain, false},
		{"cuDevicePrimaryCtxRelease_v2", &d.contextRelease, false},
		{"cuCtxSetCurrent", &d.contextSetCurrent, false},
		{"cuModuleLoadDataEx", &d.moduleLoad, false},
		{"cuModuleUnload", &d.moduleUnload, false},
		{"cuModuleGetFunction", &d.moduleGet, false},
		{"cuFuncSetAttribute", &d.functionSet, false},
		{"cuFuncGetAttribute", &d.functionGet, false},
		{"cuFuncLoad", &d.functionLoad, true},
		{"cuMemGetInfo_v2", &d.memInfo, false},
		{"cuMemAlloc_v2", &d.memAlloc, false},
		{"cuMemFree_v2", &d.memFree, false},
		{"cuMemHostAlloc", &d.hostAlloc, false},
		{"cuMemFreeHost", &d.hostFree, false},
		{"cuMemcpyHtoDAsync_v2", &d.upload, false},
		{"cuMemcpyDtoHAsync_v2", &d.download, false},
		{"cuMemsetD8Async", &d.memset8, false},
		{"cuTensorMapEncodeTiled", &d.encodeTiled, true},
		{"cuStreamCreate", &d.streamCreate, false},
		{"cuStreamDestroy_v2", &d.streamDestroy, false},
		{"cuStreamSynchronize", &d.streamWait, false},
		{"cuStreamBeginCapture_v2", &d.captureBegin, false},
		{"cuStreamEndCapture", &d.captureEnd, false},
		{"cuStreamGetCaptureInfo_v2", &d.captureInfo, true},
		{"cuStreamUpdateCaptureDependencies", &d.captureDepend, true},
		{"cuEventCreate", &d.eventCreate, false},
		{"cuEventDestroy_v2", &d.eventDestroy, false},
		{"cuEventRecord", &d.eventRecord, false},
		{"cuEventElapsedTime", &d.eventElapsed, false},
		{"cuLaunchKernel", &d.launch, false},
		{"cuLaunchKernelEx", &d.launchEx, true},
		{"cuGraphInstantiateWithFlags", &d.graphInstantiate, false},
		{"cuGraphLaunch", &d.graphLaunch, false},
		{"cuGraphDestroy", &d.graphFree, false},
		{"cuGraphExecDestroy", &d.executableFree, false},
	}
}

type symbol struct {
	name     string
	function any // pointer to the function that calls it
	optional bool
}

// Constants of cuda.h.
const (
	success          = 0
	errorNoDevice    = 100
	errorOutOfMemory = 2

	attributeMajor = 75 // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
	attributeMinor = 76
	attributeSMs   = 16 // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT

	functionStatic     = 1  // CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES
	functionLocal      = 3  // CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES
	functionRegisters  = 4  // CU_FUNC_ATTRIBUTE_NUM_REGS
	functionShared     = 8  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
	functionBigCluster = 14 // CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED

	jitErrorLog     = 5 // CU_JIT_ERROR_LOG_BUFFER
	jitErrorLogSize = 6 // CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES

	streamNonBlocking = 1
	captureRelaxed    = 2 // CU_STREAM_CAPTURE_MODE_RELAXED
	captureSet        = 1 // CU_STREAM_SET_CAPTURE_DEPENDENCIES

	launchCluster = 4 // CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
)

// openDriver loads the library and starts the driver.
func openDriver() (*driver, error) {
	d := &driver{path: library}
	if p := os.Getenv("GOUACHE_LIBCUDA"); p != "" {
		d.path = p
	}
	if err := d.link(); err != nil {
		return nil, err
	}
	switch r := d.init(0); r {
	case success:
		return d, nil
	case errorNoDevice:
		return nil, d.noDevice()
	default:
		return nil, d.failed("starting the driver", r)
	}
}

func (d *driver) noDevice() error {
	return fmt.Errorf("cuda: no GPU: the driver finds none; see what nvidia-smi says, or choose a processor target")
}

// failed is the error of a call that returned r while something was done; nil if it succeeded.
func (d *driver) failed(doing string, r int32) error {
	if r == success {
		return nil
	}
	return &Error{Code: int(r), doing: doing, name: d.text(d.getErrorName, r), text: d.text(d.getErrorString, r)}
}

func (d *driver) text(get func(int32, **byte) int32, r int32) string {
	var p *byte
	if get(r, &p) != success || p == nil {
		return ""
	}
	return goString(p)
}

// goString copies a C string.
func goString(p *byte) string {
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}

// cString is s with a zero byte at its end.
func cString(s string) *byte {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return &b[0]
}

// Error is what a call of the driver came to.
type Error struct {
	Code              int // CUresult
	doing, name, text string
}

// Error says what was done, and what the driver calls the error.
func (e *Error) Error() string {
	s := "cuda: " + e.doing + ": "
	if e.name == "" {
		return s + fmt.Sprintf("error %d, which the driver does not explain", e.Code)
	}
	return s + strings.TrimSuffix(e.name+": "+e.text, ": ")
}
