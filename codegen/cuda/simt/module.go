package simt

// Module is parsed PTX text. It can be launched any number of times, on any
// machine.
type Module struct {
	target  int // 90 of sm_90a
	globals []*global
	entries []*entry
}

// Entries lists the names of the kernels in the order of the text.
func (m *Module) Entries() []string {
	var s []string
	for _, e := range m.entries {
		s = append(s, e.name)
	}
	return s
}

func (m *Module) entry(name string) *entry {
	for _, e := range m.entries {
		if e.name == name {
			return e
		}
	}
	return nil
}

// global is a .global or .const array of the module.
type global struct {
	name  string
	bytes []byte // as initialised, nil if it isn't
	size  int
	align int

	constant bool
}

// param is a kernel parameter in parameter memory.
type param struct {
	name      string
	at, bytes int
	typ       typ
}

// entry is one kernel, ready to run.
type entry struct {
	name   string
	params []param
	pbytes int // of parameter memory

	maxThreads, reqThreads [3]int // 0 where the text doesn't say
	cluster                [3]int // .reqnctapercluster

	code []inst
	meta []meta // of the instruction with the same index

	// Registers of each class, and those that hold constants.
	n32, n64, np int
	consts       []constant
	written      []ref // registers that instructions write

	static   int // bytes of shared memory declared with a size
	dynamic  int // where the extern array starts behind the start of shared memory
	shAlign  int
	async    bool // has operations of the async proxy
	wgmma    bool
	clusters bool // uses what only clusters have
}

// meta is what a fault says about an instruction.
type meta struct {
	line         int
	text, source string
}

// constant is a register that never changes: an immediate, or what only the
// launch knows.
type constant struct {
	ref
	what  constKind
	value uint64 // the immediate; the global's index and offset are global and value
	index int
}

type constKind uint8

const (
	immediate constKind = iota
	globalAddress
	special // a special register; index says which
)

// Special registers.
const (
	srTidX = iota
	srTidY
	srTidZ
	srNtidX
	srNtidY
	srNtidZ
	srCtaidX
	srCtaidY
	srCtaidZ
	srNctaidX
	srNctaidY
	srNctaidZ
	srLaneid
	srWarpid
	srNwarpid
	srClusteridX
	srClusteridY
	srClusteridZ
	srNclusteridX
	srNclusteridY
	srNclusteridZ
	srClusterCtaidX
	srClusterCtaidY
	srClusterCtaidZ
	srClusterNctaidX
	srClusterNctaidY
	srClusterNctaidZ
	srClusterCtarank
	srClusterNctarank
	srDynamicSmem
	srLaneEq
	srLaneLt
	srLaneLe
	srLaneGt
	srLaneGe
	srSmid
	srNsmid
	srClock
)

var specials = map[string]int{
	"%tid.x": srTidX, "%tid.y": srTidY, "%tid.z": srTidZ,
	"%ntid.x": srNtidX, "%ntid.y": srNtidY, "%ntid.z": srNtidZ,
	"%ctaid.x": srCtaidX, "%ctaid.y": srCtaidY, "%ctaid.z": srCtaidZ,
	"%nctaid.x": srNctaidX, "%nctaid.y": srNctaidY, "%nctaid.z": srNctaidZ,
	"%laneid": srLaneid, "%warpid": srWarpid, "%nwarpid": srNwarpid,
	"%clusterid.x": srClusteridX, "%clusterid.y": srClusteridY, "%clusterid.z": srClusteridZ,
	"%nclusterid.x": srNclusteridX, "%nclusterid.y": srNclusteridY, "%nclusterid.z": srNclusteridZ,
	"%cluster_ctaid.x": srClusterCtaidX, "%cluster_ctaid.y": srClusterCtaidY, "%cluster_ctaid.z": srClusterCtaidZ,
	"%cluster_nctaid.x": srClusterNctaidX, "%cluster_nctaid.y": srClusterNctaidY, "%cluster_nctaid.z": srClusterNctaidZ,
	"%cluster_ctarank": srClusterCtarank, "%cluster_nctarank": srClusterNctarank,
	"%dynamic_smem_size": srDynamicSmem,
	"%lanemask_eq":       srLaneEq, "%lanemask_lt": srLaneLt, "%lanemask_le": srLaneLe,
	"%lanemask_gt": srLaneGt, "%lanemask_ge": srLaneGe,
	"%smid": srSmid, "%nsmid": srNsmid, "%clock": srClock,
}
