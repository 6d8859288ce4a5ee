package worker

import (
	"encoding/json"
	"fmt"
)

// Role is what a process that a master has started is there for.
type Role string

const (
	// RoleWorker serves.
	RoleWorker Role = "worker"
	// RolePreload runs App.Preload, fills the descriptor Preload and ends.
	RolePreload Role = "preload"
	// RoleCheck is a new program that is asked, before anything is touched,
	// whether it could take over: it checks its configuration and ends.
	RoleCheck Role = "check"
)

// InheritanceVariable is the environment variable that holds an Inheritance. A
// process that finds it takes it out of its environment, so that programs that
// it starts do not think themselves workers.
const InheritanceVariable = "CATAMOUNT_INHERITANCE"

// Inheritance is what a master leaves to a process that it starts. All
// descriptors are open and non-blocking; whoever finds them sets close-on-exec
// first of all. -1 is none.
type Inheritance struct {
	Protocol int  `json:"protocol"`
	Role     Role `json:"role"`
	Index    int  `json:"index"` // of the worker, from 0
	Phase    int  `json:"phase"`
	Master   int  `json:"master"` // its pid
	// Argv0 is what the program's os.Args[0] was before the master put a title
	// there.
	Argv0 string `json:"argv0"`

	Pipe    int `json:"pipe"`    // messages to the master are written here
	Check   int `json:"check"`   // end-of-file: the master is gone
	Page    int `json:"page"`    // the shared page
	Preload int `json:"preload"` // a memfd: sealed for workers, empty for RolePreload
	// HandOver is a pair of connected SOCK_SEQPACKET sockets that all workers
	// share: a worker that leaves sends its idle connections into the first, and
	// any that stays takes them out of the second.
	HandOver [2]int `json:"hand_over"`

	Listeners []InheritedListener `json:"listeners"`
	// MemoryLimit: GOMEMLIMIT in the environment is the master's, not the
	// user's.
	MemoryLimit bool `json:"memory_limit"`
}

// InheritedListener is a listening socket and the bind it belongs to.
type InheritedListener struct {
	FD   int    `json:"fd"`
	Bind string `json:"bind"` // as in the configuration: tcp://127.0.0.1:9292
}

// Encode is for InheritanceVariable.
func (i Inheritance) Encode() string {
	text, err := json.Marshal(i)
	if err != nil {
		panic(err) // numbers and strings only: cannot happen
	}
	return string(text)
}

// ParseInheritance reads what Encode has written. It refuses another protocol,
// except for RoleCheck.
func ParseInheritance(text string) (Inheritance, error) {
	var i Inheritance
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		return i, fmt.Errorf("%s: %w", InheritanceVariable, err)
	}
	// Whether a program of another protocol could take over is what RoleCheck
	// is there to find out.
	if i.Protocol != Protocol && i.Role != RoleCheck {
		return i, fmt.Errorf("%s: the master speaks protocol %d, this program %d: a hot restart (USR2) brings both together",
			InheritanceVariable, i.Protocol, Protocol)
	}
	switch i.Role {
	case RoleWorker, RolePreload, RoleCheck:
		return i, nil
	}
	return i, fmt.Errorf("%s: unknown role %q", InheritanceVariable, i.Role)
}
