#!/usr/bin/env bash
#SBATCH --job-name=raykd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --requeue
# sbatch slurm.sh SCENARIO RUN_DIR: a Ray cluster inside the job; a requeued job goes on with the run.
set -euo pipefail
scenario=$1 run_dir=$2
port=$((20000 + SLURM_JOB_ID % 20000))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_ADDRESS="$head:$port" RAY_AUTH_MODE=token RAY_TMPDIR="/tmp/r$SLURM_JOB_ID"
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN

start() { # NODES OPTIONS...: Ray on some nodes, ended with the job
  local count=$1 nodes=$2
  shift 2
  srun --nodes="$count" --ntasks="$count" --nodelist="$nodes" \
    ray start --block --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats "$@" &
}

start 1 "$head" --head --port="$port" --include-dashboard=false
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  sleep 15
  others=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tail -n +2 | paste -sd, -)
  start $((SLURM_JOB_NUM_NODES - 1)) "$others" --address="$RAY_ADDRESS"
fi
sleep 15
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" raykd run "$scenario" --out "$run_dir" --continue
