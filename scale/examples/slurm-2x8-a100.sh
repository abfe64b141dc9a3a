#!/bin/bash
# A run on two nodes of eight A100 under Slurm:
#
#   export INTERFACE=eth1    # of the network between the nodes, which strangers must not reach
#   sbatch scale/examples/slurm-2x8-a100.sh --experiment fig4 --cell 14b-dynamo-1
#
# Arguments go to `python -m scale train`. Submit it from the checkout. Checkout, .venv, data, HF_HOME and results must
# lie on a file system that both nodes see. Not tried on a cluster yet; memory, time limit and partition are yours to set.
#
# Slurm sends SIGTERM to this script some seconds before the time limit (`--signal`). The run then saves a checkpoint and
# ends with status 75, and the job is put into the queue again. The seconds must be enough for what follows the rollouts
# of a step, with a validation and a checkpoint: your first steps show it, and `grace` of `--dry-run` is the dear end. If
# they are not enough, the run goes on from its last regular checkpoint. A run that fails or hangs is started again from
# its last checkpoint, up to three times.

#SBATCH --job-name=dynamo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=48:00:00
#SBATCH --signal=B:TERM@7200
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail
interface=${INTERFACE:?the interface of the network between the nodes}
cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
on() { # NODE COMMAND...: run a command on a node
    srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --gpus-per-node=8 --nodelist="$1" "${@:2}"
}

ip_of() { # NODE: its address on the interface
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" ip -4 -o address show dev "$interface" | awk '{sub("/.*", "", $4); print $4; exit}'
}
first=$(ip_of "${nodes[0]}")
second=$(ip_of "${nodes[1]}")
address="$first:6379"

# Ray lets nobody in without a token, which srun hands on with the environment.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')

common=(--num-gpus=8 --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block)
on "${nodes[0]}" ray start --head --node-ip-address="$first" --port=6379 "${common[@]}" &
until ray status --address "$address" >/dev/null 2>&1; do sleep 2; done
on "${nodes[1]}" ray start --address="$address" --node-ip-address="$second" "${common[@]}" &
until ray status --address "$address" 2>/dev/null | grep -q '/16.0 GPU'; do sleep 2; done

# On this node, the first one: it joins the Ray cluster that RAY_ADDRESS names. Bash hears SIGTERM while it waits.
RAY_ADDRESS="$address" python -m scale train --cluster 2x8-a100 --restarts 3 "$@" network.interface="$interface" &
run=$! asked=
trap 'asked=yes; kill -TERM "$run"' TERM
wait "$run" && status=0 || status=$?
if [ "$asked" ]; then # the signal has ended the first wait
    wait "$run" && status=0 || status=$?
fi
if [ "$status" = 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
