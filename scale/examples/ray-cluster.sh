#!/bin/bash
# A run on two nodes of eight A100 without a scheduler, started on one of them:
#
#   export INTERFACE=eth1    # of the network between the nodes, which strangers must not reach
#   scale/examples/ray-cluster.sh OTHER_NODE --experiment fig4 --cell 14b-dynamo-1
#
# The other node is reached by ssh. What follows its name goes to `python -m scale train`. Start it in the checkout;
# checkout, .venv, data, HF_HOME and results must be at the same place on both nodes, on a file system that both see.
# Not tried on two nodes yet.

set -euo pipefail
other=${1:?usage: ray-cluster.sh OTHER_NODE ARGUMENTS OF TRAIN}
shift
interface=${INTERFACE:?the interface of the network between the nodes}
source .venv/bin/activate
# Ray lets nobody in without a token; the other node reads it from standard input.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')

there() { # COMMAND...: run a command on the other node
    ssh "$other" "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=\$(cat); cd '$PWD' && source .venv/bin/activate && $*" <<<"$RAY_AUTH_TOKEN"
}
ip_of() { # its address on the interface, from what ip says
    awk '{sub("/.*", "", $4); print $4; exit}'
}
show="ip -4 -o address show dev $interface"
first=$($show | ip_of)
second=$(there "$show" | ip_of)
address="$first:6379"

stop() {
    ray stop
    there ray stop
}
trap stop EXIT

ray start --head --node-ip-address="$first" --port=6379 --num-gpus=8 --disable-usage-stats
there ray start --address="$address" --node-ip-address="$second" --num-gpus=8 --disable-usage-stats
until ray status --address "$address" 2>/dev/null | grep -q '/16.0 GPU'; do sleep 2; done

RAY_ADDRESS="$address" python -m scale train --cluster 2x8-a100 "$@" network.interface="$interface"
