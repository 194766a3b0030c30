#!/usr/bin/env bash
# Two machines of eight GPUs: sbatch vlact/tools/launch/slurm.sh annotations.csv videos runs/i3d --kind I3D --steps 20000
# MODULE=vlact.papers.actionvlm.scaling sbatch vlact/tools/launch/slurm.sh thumos_gt.json features runs/actionformer --step-s 0.1333
#SBATCH --job-name=vlact
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# A job that is taken away goes on from its last checkpoint when it is queued again, also with other numbers here.
srun --kill-on-bad-exit=1 bash -c "accelerate launch --config_file vlact/tools/launch/ddp.yaml \
  --num_machines $SLURM_NNODES --num_processes $((SLURM_NNODES * 8)) --machine_rank \$SLURM_NODEID \
  --main_process_ip $first --main_process_port 29500 -m ${MODULE:-vlact.papers.scaling} ${*@Q}"
