"""A Ray cluster on loopback, run by a Python that has Ray: a head that takes no jobs, and worker nodes.

Prints one line of JSON when it is up, and ends at the end of standard input. It imports nothing of Postgrad.
"""

import json
import sys

from ray._private import ray_constants
from ray.cluster_utils import Cluster

STORE = 80 << 20


def main() -> None:
    workers, cores = int(sys.argv[1]), int(sys.argv[2])
    small = {"object_store_memory": STORE, "memory": 4 << 30}
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": 0, **small}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=cores, wait=False, **small) for _ in range(workers)]
    cluster.wait_for_nodes()
    pids = [node.all_processes[ray_constants.PROCESS_TYPE_RAYLET][0].process.pid for node in nodes]
    print(json.dumps({"address": f"http://{cluster.head_node.webui_url}", "raylets": pids}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
