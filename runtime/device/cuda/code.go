package cuda

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/gouache-ml/gouache/runtime/exec"
)

// Code is kernels that the driver has loaded.
type Code struct {
	device  *Device
	modules []uintptr
	where   map[string]int // module of each entry
	entries map[string]*function
}

// function is an entry that has been looked up.
type function struct {
	handle     uintptr
	static     int // bytes of shared memory that the code itself declares
	shared     int // bytes of dynamic shared memory that were asked for
	bigCluster bool
}

// usualShared is how much shared memory a block may have without asking.
const usualShared = 48 << 10

var entryName = regexp.MustCompile(`\.entry\s+([A-Za-z0-9_$%.]+)`)

// Load loads code, several parts at a time. Binaries are for GPUs of just the compute capability of
// their target; elsewhere, and where the driver refuses one, which is reported on d.warnings, it
// assembles the PTX. The error has what the assembler says.
func (d *Device) Load(target string, parts []exec.Part) (exec.Code, error) {
	n, _, err := capability(target)
	if err != nil {
		return nil, err
	}
	mine := n == d.capability()
	c := &Code{device: d, modules: make([]uintptr, len(parts)), where: map[string]int{}, entries: map[string]*function{}}
	errs, refused := make([]error, len(parts)), make([]error, len(parts))
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(1, runtime.GOMAXPROCS(0)))
	for i, p := range parts {
		for _, m := range entryName.FindAllStringSubmatch(p.Text, -1) {
			c.where[m[1]] = i
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = d.on(func() error {
				which := fmt.Sprintf("%d of %d", i+1, len(parts))
				if mine && p.Binary != nil {
					if refused[i] = d.loadModule(&c.modules[i], &p.Binary[0], "loading binary "+which); refused[i] == nil {
						return nil
					}
				}
				return d.loadModule(&c.modules[i], cString(p.Text), "assembling text "+which+" of PTX")
			})
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	for _, err := range refused {
		if err != nil {
			fmt.Fprintf(d.warnings, "%v; the driver assembles PTX instead, which takes longer\n", err)
			break
		}
	}
	return c, nil
}

// loadModule loads one text with a zero byte at its end, or one binary.
func (d *Device) loadModule(module *uintptr, image *byte, doing string) error {
	log := make([]byte, 16<<10)
	options := []int32{jitErrorLog, jitErrorLogSize}
	values := []uintptr{uintptr(unsafe.Pointer(&log[0])), uintptr(len(log) - 1)}
	r := d.driver.moduleLoad(module, unsafe.Pointer(image), uint32(len(options)), &options[0], &values[0])
	said := firstLines(goString(&log[0])) // the last byte stays zero
	runtime.KeepAlive(log)
	err := d.driver.failed(doing, r)
	if err == nil || said == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, said)
}

// firstLines joins the first lines of an assembler's log.
func firstLines(log string) string {
	const most = 6
	var lines []string
	for line := range strings.Lines(log) {
		if line = strings.Join(strings.Fields(line), " "); line == "" {
			continue
		}
		if len(lines) == most {
			lines = append(lines, "and more")
			break
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

// Close unloads the code.
func (c *Code) Close() error {
	d := c.device
	return d.on(func() error {
		var errs []error
		for i, m := range c.modules {
			if m != 0 {
				errs = append(errs, d.driver.failed("unloading kernels", d.driver.moduleUnload(m)))
				c.modules[i] = 0
			}
		}
		return errors.Join(errs...)
	})
}

// function looks an entry up and lets it have the shared memory and the cluster that e asks for.
func (c *Code) function(e *exec.Entry) (*function, error) {
	d := c.device.driver
	f := c.entries[e.Name]
	if f == nil {
		i, ok := c.where[e.Name]
		if !ok || c.modules[i] == 0 {
			return nil, fmt.Errorf("cuda: entry %s is not in the code", e.Name)
		}
		f = &function{}
		if err := d.failed("looking up "+e.Name, d.moduleGet(&f.handle, c.modules[i], cString(e.Name))); err != nil {
			return nil, err
		}
		// A kernel may be loaded only when it first runs, which is no time for it in a capture.
		if d.functionLoad != nil {
			if err := d.failed("loading "+e.Name, d.functionLoad(f.handle)); err != nil {
				return nil, err
			}
		}
		var static int32
		if err := d.failed("reading attributes of "+e.Name, d.functionGet(&static, functionStatic, f.handle)); err != nil {
			return nil, err
		}
		f.static = int(static)
		c.entries[e.Name] = f
	}
	if f.static+e.Shared > usualShared && e.Shared > f.shared {
		if err := d.failed(fmt.Sprintf("giving %s %d bytes of shared memory", e.Name, e.Shared), d.functionSet(f.handle, functionShared, int32(e.Shared))); err != nil {
			return nil, err
		}
		f.shared = e.Shared
	}
	if e.Cluster > 8 && !f.bigCluster {
		if err := d.failed(fmt.Sprintf("giving %s clusters of %d blocks", e.Name, e.Cluster), d.functionSet(f.handle, functionBigCluster, 1)); err != nil {
			return nil, err
		}
		f.bigCluster = true
	}
	return f, nil
}

// Attributes are what the assembler made of an entry: registers and bytes of local memory a
// thread, which are spills, and bytes of static shared memory a block.
func (c *Code) Attributes(entry string) (registers, local, shared int, err error) {
	d := c.device
	err = d.on(func() error {
		f, err := c.function(&exec.Entry{Name: entry})
		if err != nil {
			return err
		}
		shared = f.static
		for _, a := range []struct {
			number int32
			into   *int
		}{{functionRegisters, &registers}, {functionLocal, &local}} {
			var v int32
			if err := d.driver.failed("reading attributes of "+entry, d.driver.functionGet(&v, a.number, f.handle)); err != nil {
				return err
			}
			*a.into = int(v)
		}
		return nil
	})
	return registers, local, shared, err
}

// launchConfig is CUlaunchConfig.
type launchConfig struct {
	gridX, gridY, gridZ    uint32
	blockX, blockY, blockZ uint32
	shared                 uint32
	_                      uint32
	stream                 uintptr
	attributes             *launchAttribute
	numAttributes          uint32
	_                      uint32
}

// launchAttribute is CUlaunchAttribute with a cluster's dimensions as its value.
type launchAttribute struct {
	id      uint32
	_       uint32
	x, y, z uint32
	_       [52]byte // the value is a union of 64 bytes
}

// call is an entry with its arguments.
type call struct {
	name      string
	function  uintptr
	grid      [3]uint32
	block     uint32
	shared    uint32
	config    *launchConfig    // for clusters
	arguments []byte           // what params point at: tensor maps, then addresses
	params    []unsafe.Pointer // to each argument
}

const tensorMapBytes = 128

// Prepare looks the entry up and lays its arguments out; buffers are the addresses of its launch.
func (c *Code) Prepare(e *exec.Entry, buffers []uint64) (exec.Call, error) {
	var x *call
	err := c.device.on(func() (err error) {
		x, err = c.prepare(e, buffers)
		return err
	})
	if err != nil {
		return nil, err
	}
	return x, nil
}

func (c *Code) prepare(e *exec.Entry, buffers []uint64) (*call, error) {
	if err := check(e); err != nil {
		return nil, fmt.Errorf("cuda: entry %s: %w", e.Name, err)
	}
	f, err := c.function(e)
	if err != nil {
		return nil, err
	}
	x := &call{name: e.Name, function: f.handle, block: uint32(e.Block), shared: uint32(e.Shared)}
	for i, g := range e.Grid {
		x.grid[i] = uint32(g)
	}
	// Tensor maps are aligned to 64 bytes.
	size := tensorMapBytes*len(e.Maps) + 8*len(e.Args)
	memory := make([]byte, size+64)
	skip := int(-uintptr(unsafe.Pointer(&memory[0])) & 63)
	x.arguments = memory[skip : skip+size]
	at := 0
	next := func(n int) unsafe.Pointer {
		p := unsafe.Pointer(&x.arguments[at])
		at += n
		x.params = append(x.params, p)
		return p
	}
	for i := range e.Maps {
		m := &e.Maps[i]
		if m.Arg < 0 || m.Arg >= len(buffers) {
			return nil, fmt.Errorf("cuda: entry %s: it maps buffer %d of %d", e.Name, m.Arg, len(buffers))
		}
		if err := c.device.encode(next(tensorMapBytes), m, buffers[m.Arg]); err != nil {
			return nil, fmt.Errorf("%w, tensor map %d of %s", err, i, e.Name)
		}
	}
	for _, a := range e.Args {
		if a < 0 || a >= len(buffers) {
			return nil, fmt.Errorf("cuda: entry %s: it takes buffer %d of %d", e.Name, a, len(buffers))
		}
		*(*uint64)(next(8)) = buffers[a]
	}
	if e.Cluster > 1 {
		if c.device.driver.launchEx == nil {
			return nil, fmt.Errorf("cuda: %s: entry %s wants clusters; install a newer driver, of CUDA 11.8 or later", c.device.driver.path, e.Name)
		}
		x.config = &launchConfig{gridX: x.grid[0], gridY: x.grid[1], gridZ: x.grid[2], blockX: x.block, blockY: 1, blockZ: 1,
			shared: x.shared, stream: c.device.stream, attributes: &launchAttribute{id: launchCluster, x: uint32(e.Cluster), y: 1, z: 1}, numAttributes: 1}
	}
	return x, nil
}

// check refuses what no GPU launches, in words that say more than the driver's.
func check(e *exec.Entry) error {
	for i, g := range e.Grid {
		if most := [3]int{math.MaxInt32, 65535, 65535}[i]; g < 1 || g > most {
			return fmt.Errorf("a grid of %v blocks is not possible", e.Grid)
		}
	}
	if e.Block < 1 || e.Block > 1024 {
		return fmt.Errorf("a block of %d threads is not possible", e.Block)
	}
	if e.Shared < 0 || e.Shared > 256<<10 {
		return fmt.Errorf("%d bytes of shared memory are not possible", e.Shared)
	}
	if e.Cluster < 0 || e.Cluster > 1 && e.Grid[0]%e.Cluster != 0 {
		return fmt.Errorf("a grid of %v blocks can't be cut into clusters of %d", e.Grid, e.Cluster)
	}
	return nil
}

// launch starts a call, or adds it to the capture under way. The driver copies the arguments.
func (d *Device) launch(x *call) error {
	params := unsafe.Pointer(unsafe.SliceData(x.params))
	var r int32
	if x.config != nil {
		r = d.driver.launchEx(x.config, x.function, params, nil)
	} else {
		r = d.driver.launch(x.function, x.grid[0], x.grid[1], x.grid[2], x.block, 1, 1, x.shared, d.stream, params, nil)
	}
	runtime.KeepAlive(x)
	if r != success {
		return d.driver.failed(fmt.Sprintf("starting %s, grid %v, %d threads, %d bytes of shared memory", x.name, x.grid, x.block, x.shared), r)
	}
	return nil
}

// dataTypes are the CUtensorMapDataType of storage types; the 16-bit formats of the optimiser are
// moved as they are.
var dataTypes = map[exec.DType]uint32{
	exec.F32: 7, exec.F16: 6, exec.BF16: 9, exec.E6M9: 1, exec.UE6M10: 1, exec.I32: 3, exec.I8: 0, exec.Bool: 0,
}

var swizzles = map[int]uint32{0: 0, 32: 1, 64: 2, 128: 3}

// encode writes the tensor map of a buffer at an address to p. Elements outside read as zero.
func (d *Device) encode(p unsafe.Pointer, m *exec.TensorMap, buffer uint64) error {
	if d.driver.encodeTiled == nil {
		return fmt.Errorf("cuda: %s: it has no tensor maps; install a newer driver, of CUDA 12.0 or later", d.driver.path)
	}
	rank := len(m.Dims)
	dataType, known := dataTypes[m.DType]
	swizzle, possible := swizzles[m.Swizzle]
	if !known || !possible || rank < 1 || rank > 5 || len(m.Box) != rank || len(m.Strides) != rank-1 {
		return fmt.Errorf("cuda: a map of %s, dimensions %v, strides %v, box %v, swizzle %d is not possible", m.DType, m.Dims, m.Strides, m.Box, m.Swizzle)
	}
	var dims, strides [5]uint64
	var box, steps [5]uint32
	for i := range rank {
		dims[i], box[i], steps[i] = uint64(m.Dims[i]), uint32(m.Box[i]), 1
		if i > 0 {
			strides[i-1] = uint64(m.Strides[i-1])
		}
	}
	const (
		noInterleave  = 0
		promoteTo256B = 3 // CU_TENSOR_MAP_L2_PROMOTION_L2_256B
		fillZeros     = 0
	)
	r := d.driver.encodeTiled(p, dataType, uint32(rank), buffer+uint64(m.Offset), &dims[0], &strides[0], &box[0], &steps[0], noInterleave, swizzle, promoteTo256B, fillZeros)
	if r != success {
		return d.driver.failed(fmt.Sprintf("encoding a map of %s at %#x, dimensions %v, strides %v, box %v, swizzle %d", m.DType, buffer+uint64(m.Offset), m.Dims, m.Strides, m.Box, m.Swizzle), r)
	}
	return nil
}
