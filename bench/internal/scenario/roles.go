package scenario

import (
	"github.com/catamount-server/catamount/bench/internal/load"
	"github.com/catamount-server/catamount/bench/internal/process"
	"github.com/catamount-server/catamount/bench/internal/server"
)

// Roles are those of the processes that scenarios start: main must play them.
func Roles() map[string]process.Role {
	return map[string]process.Role{
		server.RoleName:    server.Role,
		server.ClusterRole: server.BeCluster,
		load.LoopsRole:     load.BeLoops,
		load.SteadyRole:    load.BeSteady,
		load.CrowdRole:     load.BeCrowd,
	}
}
