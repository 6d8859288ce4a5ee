package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"

	"github.com/catamount-server/catamount"
	"github.com/catamount-server/catamount/bench/internal/process"
)

// ClusterRole is the role of a master, and of its workers, which are the same
// program with the same arguments.
const ClusterRole = "cluster"

// clusterSpec is what a master and its workers are told.
type clusterSpec struct {
	Spec
	Addr string
}

// clusterCommand is the master as a program: it needs a process of its own,
// because a hot restart executes that anew.
func clusterCommand(addr string, spec Spec) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(clusterSpec{spec, addr})
	if err != nil {
		return nil, err
	}
	return exec.Command(self, process.RoleArgument, ClusterRole, string(text)), nil
}

// BeCluster is the body of a master and of its workers.
func BeCluster(text []byte, _ io.Reader, _ io.Writer) error {
	var spec clusterSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	config := catamount.Config{
		Binds: []string{"tcp://" + spec.Addr}, Workers: spec.Workers, Quiet: true, Logger: quiet(),
		Server: &catamount.Server{MaxThreads: spec.Threads},
	}
	return catamount.Run(context.Background(), config, catamount.App{
		Handler: func(*catamount.Worker) (http.Handler, error) { return handler(spec.App, newContent(spec.Spec)), nil },
	})
}
