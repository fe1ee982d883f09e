package cuda

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/gouache-ml/gouache/runtime/exec"
)

func init() {
	exec.RegisterDevice("cuda", func() (exec.Device, error) {
		d, err := Open()
		if err != nil {
			return nil, err
		}
		return d, nil
	})
}

// Device is a GPU with one stream of work; it implements exec.Device.
type Device struct {
	driver       *driver
	device       int32
	context      uintptr
	stream       uintptr
	name         string
	major, minor int
	sms          int
	memory       int64
	events       []uintptr // for Time, kept
	warnings     io.Writer
}

// Open finds the first GPU, which CUDA_VISIBLE_DEVICES decides, and takes its primary context.
func Open() (*Device, error) {
	driver, err := openDriver()
	if err != nil {
		return nil, err
	}
	d := &Device{driver: driver, warnings: os.Stderr}
	if err := d.open(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Device) open() error {
	c := d.driver
	var n int32
	if err := c.failed("counting GPUs", c.deviceGetCount(&n)); err != nil {
		return err
	}
	if n == 0 {
		return c.noDevice()
	}
	if err := c.failed("opening GPU 0", c.deviceGet(&d.device, 0)); err != nil {
		return err
	}
	name := make([]byte, 256)
	if err := c.failed("reading the GPU's name", c.deviceGetName(&name[0], int32(len(name)-1), d.device)); err != nil {
		return err
	}
	d.name = goString(&name[0])
	for _, a := range []struct {
		number int32
		into   *int
	}{{attributeMajor, &d.major}, {attributeMinor, &d.minor}, {attributeSMs, &d.sms}} {
		var v int32
		if err := c.failed("reading the GPU's attributes", c.deviceGetAttribute(&v, a.number, d.device)); err != nil {
			return err
		}
		*a.into = int(v)
	}
	var total uintptr
	if err := c.failed("reading the GPU's memory size", c.deviceTotalMem(&total, d.device)); err != nil {
		return err
	}
	d.memory = int64(total)
	if err := c.failed("opening "+d.name, c.contextRetain(&d.context, d.device)); err != nil {
		return err
	}
	return d.on(func() error {
		return c.failed("making a stream", c.streamCreate(&d.stream, streamNonBlocking))
	})
}

// on calls f on a thread where the device's context is current.
func (d *Device) on(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := d.driver.failed("making the context current", d.driver.contextSetCurrent(d.context)); err != nil {
		return err
	}
	return f()
}

// Close gives the GPU back. Memory and code must have been freed.
func (d *Device) Close() error {
	if d.context == 0 {
		return nil
	}
	c := d.driver
	err := d.on(func() error {
		var errs []error
		for _, e := range d.events {
			errs = append(errs, c.failed("freeing an event", c.eventDestroy(e)))
		}
		if d.stream != 0 {
			errs = append(errs, c.failed("freeing the stream", c.streamDestroy(d.stream)))
		}
		// Nobody should find a context current that is gone.
		errs = append(errs, c.failed("leaving the context", c.contextSetCurrent(0)))
		return errors.Join(errs...)
	})
	err = errors.Join(err, c.failed("giving the GPU back", c.contextRelease(d.device)))
	d.context, d.stream, d.events = 0, 0, nil
	return err
}

// Name is what NVIDIA calls it.
func (d *Device) Name() string { return d.name }

// Capability is the compute capability, such as 9.0.
func (d *Device) Capability() (major, minor int) { return d.major, d.minor }

// Multiprocessors is how many of them it has.
func (d *Device) Multiprocessors() int { return d.sms }

// Memory is how many bytes it has.
func (d *Device) Memory() int64 { return d.memory }

// FreeMemory is how many of them nobody has taken.
func (d *Device) FreeMemory() (int64, error) {
	var free, total uintptr
	err := d.on(func() error { return d.driver.failed("reading the free memory", d.driver.memInfo(&free, &total)) })
	return int64(free), err
}

// Version is the CUDA version of the driver, such as 12040 for 12.4.
func (d *Device) Version() (int, error) {
	var v int32
	err := d.driver.failed("reading the driver's version", d.driver.driverVersion(&v))
	return int(v), err
}

// capability is the compute capability that a target is compiled for, times ten, and whether it
// runs on no other.
func capability(target string) (n int, exact bool, err error) {
	digits, ok := strings.CutPrefix(target, "sm_")
	digits, exact = strings.CutSuffix(digits, "a")
	if n, err = strconv.Atoi(digits); !ok || err != nil {
		return 0, false, fmt.Errorf("cuda: target %q is no name of a GPU's, such as sm_80", target)
	}
	return n, exact, nil
}

func (d *Device) capability() int { return 10*d.major + d.minor }

// Best picks the target of the highest compute capability that the GPU runs: "sm_90a" runs on
// 9.0 alone, "sm_80" on 8.0 and whatever came later.
func (d *Device) Best(targets []string) (string, error) {
	best, most := "", -1
	for _, t := range targets {
		n, exact, err := capability(t)
		if err != nil {
			return "", err
		}
		if mine := d.capability(); exact && n != mine || n > mine {
			continue
		}
		if rank := 2 * n; exact && rank+1 > most || rank > most {
			best, most = t, rank
			if exact {
				most++
			}
		}
	}
	if best == "" {
		return "", fmt.Errorf("cuda: kernels are compiled for %s, which %s (compute capability %d.%d) does not run; compile with -target sm_80, or sm_70 for older ones",
			strings.Join(targets, ", "), d.name, d.major, d.minor)
	}
	return best, nil
}

// Alloc takes memory, and clears it if asked to.
func (d *Device) Alloc(bytes int64, zeroed bool) (addr uint64, err error) {
	c := d.driver
	err = d.on(func() error {
		r := c.memAlloc(&addr, uintptr(max(bytes, 1)))
		if r == errorOutOfMemory {
			var free, total uintptr
			if c.memInfo(&free, &total) == success {
				return fmt.Errorf("%w; %.1f of %.1f GiB are free: end what else uses the GPU, or choose a smaller system or batch",
					c.failed(fmt.Sprintf("taking %d bytes of memory", bytes), r), gib(free), gib(total))
			}
		}
		if err := c.failed(fmt.Sprintf("taking %d bytes of memory", bytes), r); err != nil {
			return err
		}
		if !zeroed {
			return nil
		}
		err := c.failed("clearing memory", c.memset8(addr, 0, uintptr(max(bytes, 1)), d.stream))
		if err != nil {
			c.memFree(addr)
		}
		return err
	})
	return addr, err
}

func gib(bytes uintptr) float64 { return float64(bytes) / (1 << 30) }

// Free gives memory back; it waits for what may use it.
func (d *Device) Free(addr uint64) error {
	return d.on(func() error { return d.driver.failed("freeing memory", d.driver.memFree(addr)) })
}

// Pin takes host memory that the GPU copies without a detour.
func (d *Device) Pin(bytes int64) ([]byte, error) {
	var p unsafe.Pointer
	err := d.on(func() error {
		return d.driver.failed(fmt.Sprintf("pinning %d bytes of host memory", bytes), d.driver.hostAlloc(&p, uintptr(max(bytes, 1)), 0))
	})
	if err != nil {
		return nil, err
	}
	memory := unsafe.Slice((*byte)(p), max(bytes, 1))
	clear(memory)
	return memory[:bytes], nil
}

// Unpin gives back what Pin has returned.
func (d *Device) Unpin(memory []byte) error {
	return d.on(func() error {
		return d.driver.failed("freeing pinned memory", d.driver.hostFree(unsafe.Pointer(unsafe.SliceData(memory))))
	})
}

// Upload copies host memory to the GPU. Memory that isn't pinned is read before it returns.
func (d *Device) Upload(to uint64, from []byte) error {
	if len(from) == 0 {
		return nil
	}
	return d.on(func() error {
		return d.driver.failed(fmt.Sprintf("copying %d bytes to the GPU", len(from)), d.driver.upload(to, unsafe.Pointer(unsafe.SliceData(from)), uintptr(len(from)), d.stream))
	})
}

// Download copies memory of the GPU to the host, where it is after Wait.
func (d *Device) Download(to []byte, from uint64) error {
	if len(to) == 0 {
		return nil
	}
	return d.on(func() error {
		return d.driver.failed(fmt.Sprintf("copying %d bytes from the GPU", len(to)), d.driver.download(unsafe.Pointer(unsafe.SliceData(to)), from, uintptr(len(to)), d.stream))
	})
}

// Wait returns when all is done that was asked for, with the error of a kernel that went wrong.
func (d *Device) Wait() error { return d.on(d.wait) }

func (d *Device) wait() error {
	return d.driver.failed("running on the GPU", d.driver.streamWait(d.stream))
}

// Run starts calls one by one.
func (d *Device) Run(calls []exec.Call) error {
	return d.on(func() error { return d.start(calls) })
}

func (d *Device) start(calls []exec.Call) error {
	for _, c := range calls {
		if err := d.launch(c.(*call)); err != nil {
			return err
		}
	}
	return nil
}

// Time runs calls with an event after each, and waits.
func (d *Device) Time(calls []exec.Call, ends []time.Duration) error {
	return d.on(func() error {
		c := d.driver
		for len(d.events) <= len(calls) {
			var e uintptr
			if err := c.failed("making an event", c.eventCreate(&e, 0)); err != nil {
				return err
			}
			d.events = append(d.events, e)
		}
		record := func(i int) error { return c.failed("recording an event", c.eventRecord(d.events[i], d.stream)) }
		if err := record(0); err != nil {
			return err
		}
		for i, x := range calls {
			if err := d.launch(x.(*call)); err != nil {
				return err
			}
			if err := record(i + 1); err != nil {
				return err
			}
		}
		if err := d.wait(); err != nil {
			return err
		}
		for i := range calls {
			var ms float32
			if err := c.failed("reading an event", c.eventElapsed(&ms, d.events[0], d.events[i+1])); err != nil {
				return err
			}
			ends[i] = time.Duration(float64(ms) * float64(time.Millisecond))
		}
		return nil
	})
}

// recording is a graph of calls.
type recording struct {
	device     *Device
	executable uintptr
	calls      []exec.Call // the graph has copies of their arguments; kept all the same
}

// Record captures calls as a graph: calls that wait for each other, directly or not, run in that
// order, others side by side where there is room. A driver without the functions for that makes a
// chain of them.
func (d *Device) Record(calls []exec.Call, after [][]int) (exec.Recording, error) {
	r := &recording{device: d, calls: slices.Clone(calls)}
	err := d.on(func() error {
		c := d.driver
		if err := c.failed("recording kernels", c.captureBegin(d.stream, captureRelaxed)); err != nil {
			return err
		}
		var started error
		if after == nil || c.captureInfo == nil || c.captureDepend == nil {
			started = d.start(calls)
		} else {
			started = d.capture(calls, after)
		}
		// The capture has to end whatever happened in it.
		var graph uintptr
		ended := c.failed("recording kernels", c.captureEnd(d.stream, &graph))
		if graph != 0 {
			defer c.graphFree(graph)
		}
		if started != nil {
			return started
		}
		if ended != nil {
			return ended
		}
		return c.failed("making a graph of the kernels", c.graphInstantiate(&r.executable, graph, 0))
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// capture adds calls to the capture under way, each behind those that it waits for. A capture
// keeps the nodes that the next one is to depend on: they are set before a call, and are the call's
// node after it. The driver allows nodes at the end that nothing depends on, as all are of one stream.
func (d *Device) capture(calls []exec.Call, after [][]int) error {
	c := d.driver
	nodes := make([]uintptr, len(calls))
	var wait []uintptr
	for i, x := range calls {
		wait = wait[:0]
		for _, j := range after[i] {
			wait = append(wait, nodes[j])
		}
		err := c.failed("recording what a kernel waits for", c.captureDepend(d.stream, unsafe.SliceData(wait), uintptr(len(wait)), captureSet))
		if err == nil {
			err = d.launch(x.(*call))
		}
		if err != nil {
			return err
		}
		var status int32
		var id uint64
		var graph, n uintptr
		var last *uintptr
		if err := c.failed("reading the node of a kernel", c.captureInfo(d.stream, &status, &id, &graph, &last, &n)); err != nil {
			return err
		}
		if n != 1 {
			return fmt.Errorf("internal: cuda: recording %s made %d nodes", x.(*call).name, n)
		}
		nodes[i] = *last
	}
	return nil
}

// Replay starts the graph.
func (r *recording) Replay() error {
	d := r.device
	return d.on(func() error {
		return d.driver.failed("starting the graph of kernels", d.driver.graphLaunch(r.executable, d.stream))
	})
}

// Close frees the graph.
func (r *recording) Close() error {
	d, x := r.device, r.executable
	r.executable, r.calls = 0, nil
	if x == 0 {
		return nil
	}
	return d.on(func() error { return d.driver.failed("freeing a graph", d.driver.executableFree(x)) })
}
